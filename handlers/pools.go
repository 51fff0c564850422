package handlers

import "github.com/gofiber/fiber/v2"

// listPools: GET /v1/pools
func (s *Server) listPools(c *fiber.Ctx) error {
	cursor, limit := page(c)
	pools, next, err := s.allocator.Pools(c.UserContext(), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, appendList(nil, pools, appendPool))
}
