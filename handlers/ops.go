package handlers

import (
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/pprof"
)

// opsConnections is how many connections the operators' listener serves. Those of the API do not count.
const opsConnections = 256

// newOps returns the server of the operators' listener: the probes and metrics, as on the API's, and pprof.
func (s *Server) newOps(opts Options) *fiber.App {
	ops := fiber.New(fiber.Config{
		ReadTimeout:           opts.ReadTimeout,
		WriteTimeout:          opts.WriteTimeout,
		IdleTimeout:           opts.IdleTimeout,
		BodyLimit:             opts.BodyLimit,
		Concurrency:           opsConnections,
		DisableStartupMessage: true,
		ErrorHandler:          s.unmatched,
	})
	ops.Server().CloseOnShutdown = true
	for _, r := range serverRoutes {
		switch r.operation {
		case "live", "ready", "metrics":
			ops.Get(r.path, s.observe(r)) // Fiber serves HEAD by it, too
		}
	}
	ops.Use(pprof.New())
	return ops
}

// ServeOps answers operators on l until Shutdown: /livez, /readyz, /metrics and /debug/pprof. It serves while Serve has too
// many connections. Nobody is asked who they are.
func (s *Server) ServeOps(l net.Listener) error { return s.ops.Listener(l) }

// opsShutdown is how long requests of operators may take to finish. A profile can take minutes.
const opsShutdown = 100 * time.Millisecond
