package handlers

import (
	"strconv"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// waitingCalls: GET /services/{service}/waiting
func (s *Server) waitingCalls(c *fiber.Ctx) error {
	cursor, limit := page(c)
	calls, next, err := s.allocator.WaitingCalls(c.UserContext(), pool(c), param(c, "service"), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, listOf(pool(c), calls, appendWaiting))
}

func appendWaiting(b []byte, pool string, w allocator.WaitingCall) []byte {
	b = appendPlace(b, pool, w.Service)
	if w.Name != "" {
		b = append(b, `","name":"`...)
		b = append(b, w.Name...)
	}
	b = append(b, `","ports":`...)
	b = strconv.AppendInt(b, int64(w.Ports), 10)
	if w.Requests > 1 {
		b = append(b, `,"requests":`...)
		b = strconv.AppendInt(b, int64(w.Requests), 10)
	}
	if !w.Since.IsZero() {
		b = append(b, `,"since":`...)
		b = appendTime(b, w.Since)
	}
	return append(b, '}')
}
