package handlers

import (
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
)

const headerRequestID = "X-Request-ID"

// observe wraps the handler of a route: it gives the request an id, turns an error or a panic into an answer, measures the
// request, and logs it if it is slow. It never logs a path, since paths contain secrets; it logs the route's template.
func (s *Server) observe(r route) fiber.Handler {
	watched, answer := s.metrics.route(r), s.answererOf(r)
	return func(c *fiber.Ctx) error {
		start := time.Now()
		identify(c)
		if s.audit.on() {
			c.Request().Header.Set(headerRequestID, requestID(c)) // its line has the id
		}
		code := answer(r, c)
		s.audit.call(c, r, code)
		took := time.Since(start)
		waited, mayWait := waited(c)
		watched.observe(outcome{c.Response().StatusCode(), code, waits(c)}, took)
		if mayWait {
			s.metrics.waits.observe(serviceKey{pool(c), param(c, "service")}, waited, code)
		}
		if took-waited > s.slowCall { // waiting for a port is not slow
			s.slowCalls.Do(func() {
				s.log.Warn("slow call", requestAttrs(c, r, code), slog.Duration("took", took), slog.Duration("waited", waited))
			})
		}
		return nil
	}
}

// answer answers a request, and returns OK or the code of the error.
func (s *Server) answer(r route, c *fiber.Ctx) (code string) {
	if err := guard(r, s, c); err != nil {
		return s.fail(c, err)
	}
	return codeOK
}

// guard runs the route's handler and turns a panic into an error.
func guard(r route, s *Server, c *fiber.Ctx) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{value: v, stack: debug.Stack()}
		}
	}()
	return r.handle(s, c)
}

// identify sets the id of the answer: the one that the request came with, or a new one.
func identify(c *fiber.Ctx) {
	id := c.Get(headerRequestID)
	if !validRequestID(id) {
		id = uuid.NewString()
	}
	c.Response().Header.Set(headerRequestID, id)
}

func requestID(c *fiber.Ctx) string { return string(c.Response().Header.Peek(headerRequestID)) }

// knownRequestID returns the id of a request if others know it: the request came with it, or a line of the audit has it. For the history
// of a service, "" is as good as an id that nobody knows, and takes no memory.
func knownRequestID(c *fiber.Ctx) string {
	if id := requestID(c); id == c.Get(headerRequestID) {
		return id
	}
	return ""
}

func validRequestID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

func requestAttrs(c *fiber.Ctx, r route, code string) slog.Attr {
	return slog.Group("request",
		slog.String("id", requestID(c)), slog.String("method", r.method), slog.String("route", r.path),
		slog.Int("status", c.Response().StatusCode()), slog.String("code", code))
}
