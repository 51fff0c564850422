package handlers

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// live: GET /livez, which succeeds as long as the process serves at all.
func (s *Server) live(c *fiber.Ctx) error {
	return render(c, fiber.StatusOK, []byte(`{"status":"live"}`))
}

// ready: GET /readyz, which fails while Redis is away or unfit to keep allocations, and while the server drains.
func (s *Server) ready(c *fiber.Ctx) error {
	if s.open.Err() != nil {
		return shuttingDown
	}
	findings, err := s.allocator.Check(c.UserContext())
	if err != nil {
		return err
	}
	for _, found := range findings {
		if !found.Problem.IsWarning() {
			return &allocator.Error{Code: allocator.CodeUnavailable, Detail: found.Detail, RetryAfter: time.Second}
		}
	}
	return render(c, fiber.StatusOK, []byte(`{"status":"ready"}`))
}
