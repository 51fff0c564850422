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

// ready: GET /readyz, which fails while Redis is away and while the server drains.
func (s *Server) ready(c *fiber.Ctx) error {
	if s.draining.Load() {
		return &allocator.Error{Code: allocator.CodeUnavailable, Detail: "the server is shutting down", RetryAfter: time.Second}
	}
	if err := s.allocator.Ping(c.UserContext()); err != nil {
		return err
	}
	return render(c, fiber.StatusOK, []byte(`{"status":"ready"}`))
}
