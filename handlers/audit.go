package handlers

import (
	"errors"
	"log/slog"
	"regexp"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
	"portmaster/handlers/identity"
)

// Audit says which calls get a line that tells who did what. A line never contains a token, a secret or a path.
type Audit struct {
	Log      *slog.Logger // nil: no calls do
	Refusals bool         // only those that failed
}

// on reports whether there is any audit. Without it, calls note nothing.
func (a Audit) on() bool { return a.Log != nil }

// auditPrincipal returns who called, and as what. Both are empty if the server is open, or the call has no valid token.
func auditPrincipal(c *fiber.Ctx) (name, role string) {
	if caller, ok := c.Locals(principalKey{}).(*identity.Principal); ok {
		return caller.Name, string(caller.Role)
	}
	return "", ""
}

// subject is what a call was about: a service, or one allocation or offer of it. Each field may be missing.
type subject struct {
	service, name string
	port, count   int
	fence         int64
}

// notes are what a handler tells the audit.
type notes struct {
	subjects []subject
	requests int  // how many a list had
	repeat   bool // it had been done before
}

type notesKey struct{}

func (a Audit) note(c *fiber.Ctx, n notes) { c.Locals(notesKey{}, n) }

// asked notes which requests a call has. If they are granted, that is noted instead.
func (a Audit) asked(c *fiber.Ctx, requests []allocator.Request) {
	if !a.on() {
		return
	}
	s := subject{service: param(c, "service")}
	if len(requests) == 1 {
		s.name = requests[0].Name
		if requests[0].Port != nil {
			s.port = *requests[0].Port
		}
	}
	a.note(c, notes{subjects: []subject{s}, requests: len(requests)})
}

// service notes the service that a call is about.
func (a Audit) service(c *fiber.Ctx, name string) {
	if a.on() {
		a.note(c, notes{subjects: []subject{{service: name}}})
	}
}

// holder notes the allocation that a call is about, by its name or port.
func (a Audit) holder(c *fiber.Ctx, holder string) {
	if a.on() {
		a.note(c, notes{subjects: []subject{subjectOfHolder(param(c, "service"), holder)}})
	}
}

func subjectOfHolder(service, holder string) subject {
	if port, err := strconv.ParseUint(holder, 10, 16); err == nil {
		return subject{service: service, port: int(port)}
	}
	return subject{service: service, name: holder}
}

// offered notes offers that were made.
func (a Audit) offered(c *fiber.Ctx, offers []allocator.Offer, created bool) {
	if !a.on() {
		return
	}
	n := notes{repeat: !created}
	for _, o := range offers {
		n.subjects = append(n.subjects, subject{o.Service, o.Name, o.Port, o.Count, 0})
	}
	a.note(c, n)
}

// allocated notes allocations that were made, renewed, or released together.
func (a Audit) allocated(c *fiber.Ctx, allocations []allocator.Allocation, created bool) {
	if !a.on() || len(allocations) == 0 {
		return
	}
	n := notes{repeat: !created}
	for _, each := range allocations {
		n.subjects = append(n.subjects, subjectOf(each))
	}
	a.note(c, n)
}

func subjectOf(a allocator.Allocation) subject {
	return subject{a.Service, a.Name, a.Port, a.Count, a.Fence}
}

// rejecting reads the offer that a call is about to reject, since the answer to that does not tell. noteEnd notes the outcome.
func (s *Server) rejecting(c *fiber.Ctx) (noteEnd func(rejected bool)) {
	if !s.audit.on() {
		return func(bool) {}
	}
	about := subject{service: param(c, "service")}
	if o, err := s.allocator.OpenOffer(c.UserContext(), caller(c), pool(c), about.service, param(c, "secret")); err == nil {
		about = subject{o.Service, o.Name, o.Port, o.Count, 0}
	}
	s.audit.note(c, notes{subjects: []subject{about}})
	return func(rejected bool) { s.audit.note(c, notes{subjects: []subject{about}, repeat: !rejected}) }
}

// releasing reads the allocation that a call is about to release, for the same reason. A release with its secret that was done before
// leaves whoever has the port by now: it is told by that one still being there.
func (s *Server) releasing(c *fiber.Ctx, proof allocator.Proof) (noteEnd func()) {
	holder := holder(c)
	s.audit.holder(c, holder)
	if !s.audit.on() {
		return func() {}
	}
	held := func() (allocator.Allocation, error) {
		return s.allocator.Allocation(c.UserContext(), pool(c), param(c, "service"), holder)
	}
	before, err := held()
	return func() {
		repeat := errors.Is(err, allocator.ErrPortNotFound)
		if err == nil && proof.Secret != "" {
			after, err := held()
			repeat = err == nil && after.Fence == before.Fence
		}
		about := subjectOfHolder(param(c, "service"), holder)
		if err == nil && !repeat {
			about = subjectOf(before)
		}
		s.audit.note(c, notes{subjects: []subject{about}, repeat: repeat})
	}
}

// call writes the lines of a call that is over: of each that should change something, and of each that was refused for who the
// caller is, or how much the caller asks. A list that was granted has a line for each port.
func (a Audit) call(c *fiber.Ctx, r route, code string) {
	if !a.on() || code == codeOK && a.Refusals {
		return
	}
	switch c.Response().StatusCode() {
	case fiber.StatusUnauthorized, fiber.StatusForbidden, fiber.StatusTooManyRequests:
	default:
		if r.method == fiber.MethodGet || r.operation == "other" {
			return
		}
	}
	n, ok := c.Locals(notesKey{}).(notes)
	if !ok {
		n.subjects = []subject{{service: param(c, "service")}}
	}
	for _, about := range n.subjects {
		a.line(c, r, code, n, about)
	}
}

func (a Audit) line(c *fiber.Ctx, r route, code string, n notes, about subject) {
	level, show := slog.LevelInfo, func(text string) string { return text }
	if code != codeOK {
		level, show = slog.LevelWarn, shown
	}
	principal, role := auditPrincipal(c)
	attrs := make([]slog.Attr, 0, 14)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	number := func(key string, value int64, least int64) {
		if value >= least {
			attrs = append(attrs, slog.Int64(key, value))
		}
	}
	text("principal", principal)
	text("role", role)
	text("operation", r.operation)
	text("pool", show(pool(c)))
	text("service", show(about.service))
	text("name", show(about.name))
	number("port", int64(about.port), 1)
	number("count", int64(about.count), 2)
	number("fence", about.fence, 1)
	number("requests", int64(n.requests), 2)
	text("code", code)
	if n.repeat {
		attrs = append(attrs, slog.Bool("repeat", true))
	}
	text("request_id", requestID(c))
	text("ip", c.IP())
	a.Log.LogAttrs(c.UserContext(), level, "audit", attrs...)
}

// shown returns a text of a call that failed, or "" if it is no name, or could be a secret or a token: a client may have confused
// its parameters.
func shown(text string) string {
	if len(text) > allocator.MaxInstanceName || !nameLike.MatchString(text) || secretLike.MatchString(text) || tokenLike.MatchString(text) {
		return ""
	}
	return text
}

var (
	nameLike   = regexp.MustCompile(`^[A-Za-z0-9._/:@+~=-]+$`)
	tokenLike  = regexp.MustCompile(`\bpm_`)
	secretLike = regexp.MustCompile(`(?i)[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}`)
)
