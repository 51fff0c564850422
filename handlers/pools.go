package handlers

import "github.com/gofiber/fiber/v2"

// poolBody is the body that tells of a pool.
type poolBody struct {
	Name     string `json:"name"`
	Services *int   `json:"services,omitempty"` // absent if it is not known
}

// listPools: GET /v1/pools
func (s *Server) listPools(c *fiber.Ctx) error {
	cursor, limit := page(c)
	pools, next, err := s.allocator.Pools(c.UserContext(), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	list := make([]poolBody, len(pools))
	for i, pool := range pools {
		if list[i].Name = pool.Name; pool.Services >= 0 {
			list[i].Services = &pool.Services
		}
	}
	return render(c, fiber.StatusOK, encode(list))
}
