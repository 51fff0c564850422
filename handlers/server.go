// Package handlers is the HTTP API: it parses a request, calls the allocator, and renders the answer. routes.go has the route
// table; services.go (with the pools), offers.go and ports.go have the handlers of a resource each; in errors.go an error
// becomes a status; access.go decides who may use a route.
package handlers

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"portmaster/allocator"
	"portmaster/handlers/connection"
	"portmaster/handlers/identity"
)

// Options are the settings of a Server. All are required, but for MaxStreams and those from Auth on.
type Options struct {
	ReadTimeout  time.Duration // for a whole request
	WriteTimeout time.Duration // for a whole answer
	IdleTimeout  time.Duration // for the next request on a kept-alive connection
	BodyLimit    int           // bytes
	Concurrency  int           // connections; requests on further ones get 503
	MaxStreams   int           // of events; 0 is 256, and one more gets 503
	SlowCall     time.Duration // calls that take longer are logged; waiting for a port does not count
	Log          *slog.Logger

	Auth    *identity.Authenticator // knows the callers; nil: the server is open
	Hosts   []string                // which Host a request to an open server may have, beside a loopback one; without ports
	Audit   Audit                   // the zero value: none
	Metrics []prometheus.Collector  // further ones to show
	Tracer  trace.Tracer            // makes a span of each request; nil: none is traced
}

// Server serves the HTTP API of one Allocator.
type Server struct {
	allocator   *allocator.Allocator
	app         *fiber.App
	ops         *fiber.App // of the operators' listener
	log         *slog.Logger
	slowCall    time.Duration
	tracer      trace.Tracer // nil: none
	audit       Audit
	health      *health
	metrics     *metrics
	connections *connection.Limiter
	watcher     connection.Watcher
	streams     *streams
	beat        time.Duration           // of a stream
	sending     time.Duration           // how long a part of a stream may take to be sent
	auth        *identity.Authenticator // nil: open
	hosts       []string                // as canonicalHost returns them

	// Ends when the server drains, and with it the calls that wait.
	open  context.Context
	drain context.CancelCauseFunc

	// An outage or an overload affects every request: it is logged once a second.
	outages, slowCalls rate.Sometimes
}

// New returns a Server of a.
func New(a *allocator.Allocator, opts Options) *Server {
	health, streams := &health{allocator: a}, newStreams(opts.MaxStreams)
	s := &Server{
		allocator:   a,
		health:      health,
		log:         opts.Log,
		audit:       opts.Audit,
		slowCall:    opts.SlowCall,
		tracer:      opts.Tracer,
		metrics:     newMetrics(health, opts.Auth, slices.Concat(streams.metrics(), opts.Metrics)),
		streams:     streams,
		beat:        beatInterval,
		sending:     opts.WriteTimeout,
		auth:        opts.Auth,
		connections: connection.NewLimiter(opts.Concurrency),
		outages:     rate.Sometimes{First: 1, Interval: time.Second},
		slowCalls:   rate.Sometimes{First: 1, Interval: time.Second},
	}
	for _, host := range opts.Hosts {
		canonical, _ := canonicalHost(host)
		s.hosts = append(s.hosts, canonical)
	}
	s.open, s.drain = context.WithCancelCause(context.Background())
	s.app = fiber.New(fiber.Config{
		ReadTimeout:                  opts.ReadTimeout,
		WriteTimeout:                 opts.WriteTimeout,
		IdleTimeout:                  opts.IdleTimeout,
		BodyLimit:                    opts.BodyLimit,
		Concurrency:                  opts.Concurrency + 2*connection.MaxSurplus, // never reached, since fasthttp would answer in plain text
		ReadBufferSize:               8 << 10,                                    // limits the header of a request
		CaseSensitive:                true,
		StrictRouting:                true,
		DisableStartupMessage:        true,
		DisablePreParseMultipartForm: true,
		ErrorHandler:                 s.unmatched,
	})
	s.app.Server().CloseOnShutdown = true
	s.app.Server().ConnState = s.connections.Follow
	s.app.Server().Handler = s.check(s.app.Server().Handler)
	s.app.Server().ErrorHandler = s.refuseBroken(s.app.Server().ErrorHandler)
	s.mount()
	s.ops = s.newOps(opts)
	return s
}

// Serve answers the requests that come in on l, until Shutdown.
func (s *Server) Serve(l net.Listener) error { return s.app.Listener(l) }

// Drain makes /readyz fail, so that load balancers send no more requests, and ends the calls that wait for a port. Other
// calls continue.
func (s *Server) Drain() { s.drain(allocator.ErrDraining) }

// Shutdown lets open requests finish, for at most the given time, and ends Serve, then ServeOps.
func (s *Server) Shutdown(timeout time.Duration) error {
	err := s.app.ShutdownWithTimeout(timeout)
	_ = s.ops.ShutdownWithTimeout(opsShutdown)
	return err
}
