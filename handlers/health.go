package handlers

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// live: GET /livez, which succeeds as long as the process serves requests.
func (s *Server) live(c *fiber.Ctx) error {
	return render(c, fiber.StatusOK, []byte(`{"status":"live"}`))
}

// ready: GET /readyz, which fails while Redis is away or cannot keep allocations safely, and while the server drains.
func (s *Server) ready(c *fiber.Ctx) error {
	if s.open.Err() != nil {
		return allocator.ErrDraining
	}
	findings, err := s.health.check(c.UserContext())
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

// answerHolds is how long Redis counts as up after it answered a check.
const answerHolds = 10 * time.Second

// health checks Redis, and remembers when it last answered. A scrape makes a single check: if that one is slow while the
// checks of /readyz succeed, Redis is not away.
type health struct {
	allocator *allocator.Allocator
	last      atomic.Pointer[checked]
}

type checked struct {
	at       time.Time
	findings []allocator.Finding
}

func (h *health) check(ctx context.Context) ([]allocator.Finding, error) {
	findings, err := h.allocator.Check(ctx)
	if err == nil {
		h.last.Store(&checked{time.Now(), findings})
	}
	return findings, err
}

// latest checks Redis. If it does not answer, but did within answerHolds, latest returns what was found then.
func (h *health) latest(ctx context.Context) ([]allocator.Finding, error) {
	findings, err := h.check(ctx)
	if last := h.last.Load(); err != nil && last != nil && time.Since(last.at) < answerHolds {
		return last.findings, nil
	}
	return findings, err
}
