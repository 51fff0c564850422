package handlers

import (
	"strconv"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// freePorts: GET /services/{service}/free?limit=
func (s *Server) freePorts(c *fiber.Ctx) error {
	_, limit := page(c)
	free, err := s.allocator.FreePorts(c.UserContext(), pool(c), param(c, "service"), limit)
	if err != nil {
		return err
	}
	return render(c, fiber.StatusOK, appendFree(make([]byte, 0, 192+8*len(free.Ports)), pool(c), free))
}

func appendFree(b []byte, pool string, free allocator.FreePorts) []byte {
	b = appendPlace(b, pool, free.Service)
	b = append(b, `","time":`...)
	b = appendTime(b, free.Time)
	b = append(b, `,"ports":[`...)
	for i, port := range free.Ports {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(port), 10)
	}
	return append(b, ']', '}')
}
