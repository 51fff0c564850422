package handlers

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"portmaster/allocator"
	"portmaster/handlers/identity"
)

// access says who may use some routes. Of each role it has "yes", the condition, which only the scripts can check, or "" for no.
type access struct {
	routes                   string // in words
	reader, client, operator string
}

// The kinds of access, in the order of the page.
var (
	reading   = &access{"read services, offers, ports, pools, history, events", "yes", "yes", "yes"}
	acquiring = &access{"offer, claim", "", "yes", "yes"}
	holding   = &access{"read, accept, reject an offer; renew, change labels", "", "its owner, with the secret", "with the secret"}
	releasing = &access{"release", "", "its owner, or with the secret", "yes"}
	defining  = &access{"define, change, remove a service", "", "", "yes"}
	scraping  = &access{"metrics, of all services", "yes", "", "yes"}
	everybody = &access{routes: "livez, readyz, openapi, the pages"} // without a token

	accesses = []*access{reading, acquiring, holding, releasing, defining, scraping, everybody}
)

func (a *access) allows(role identity.Role) bool {
	switch role {
	case identity.Reader:
		return a.reader != ""
	case identity.Client:
		return a.client != ""
	case identity.Operator:
		return a.operator != ""
	}
	return false
}

// The errors of a call that may not use its route. What they say does not depend on whether anything that it names exists.
var (
	errUnauthenticated = &allocator.Error{Code: codeUnauthenticated, Detail: "this call needs a token: Authorization: Bearer TOKEN"}
	errRole            = &allocator.Error{Code: codeForbidden, Detail: "the role of this caller does not include this call"}
	errScope           = &allocator.Error{Code: codeForbidden, Detail: "the pool or the service is not in the scope of this caller"}
	errMisdirected     = &allocator.Error{Code: codeMisdirected, Detail: "the Host is neither localhost nor one of PORTMASTER_HOSTS"}
)

// authorized wraps the handler of a route: only calls that may use the route reach it. All that is decided here is decided before
// Redis is asked.
func (s *Server) authorized(r route) func(*Server, *fiber.Ctx) error {
	if r.access == everybody {
		return r.handle
	}
	check := s.permit
	if s.auth == nil {
		check = s.checkHost
	}
	return func(s *Server, c *fiber.Ctx) error {
		if err := check(r, c); err != nil {
			return err
		}
		return r.handle(s, c)
	}
}

// permit finds who calls, and returns an error unless that one may use the route. Only one Authorization header counts: a proxy
// on the way may have looked at another.
func (s *Server) permit(r route, c *fiber.Ctx) error {
	headers := c.Request().Header.PeekAll(fiber.HeaderAuthorization)
	if len(headers) != 1 {
		headers = [][]byte{nil}
	}
	caller, err := s.auth.Authenticate(c.UserContext(), string(headers[0]))
	c.Locals(principalKey{}, &caller)
	if err != nil {
		return errUnauthenticated
	}
	if wait := s.auth.Admit(caller); wait > 0 {
		return &allocator.Error{Code: codeRateLimited, Detail: "this caller makes more calls a second than it may", RetryAfter: wait}
	}
	if !r.access.allows(caller.Role) {
		return errRole
	}
	switch {
	case strings.Contains(r.path, "/:service"):
		return mayUse(c, param(c, "service"))
	case strings.HasPrefix(r.path, "/v1/") && r.path != "/v1/pools" && !caller.ReachesPool(pool(c)):
		return errScope
	}
	return nil
}

// mayUse returns an error unless a service of the request's pool is in the caller's scope.
func mayUse(c *fiber.Ctx, service string) error {
	if !principalOf(c).InScope(pool(c), service) {
		return errScope
	}
	return nil
}

// principalKey is where a request keeps who called.
type principalKey struct{}

// principalOf returns who calls: a stranger may do nothing; in an open server everybody is the same one, who may do everything.
func principalOf(c *fiber.Ctx) identity.Principal {
	if caller, ok := c.Locals(principalKey{}).(*identity.Principal); ok {
		return *caller
	}
	return identity.Anonymous()
}

// caller returns who calls, as the allocator has it.
func caller(c *fiber.Ctx) allocator.Caller {
	p := principalOf(c)
	return allocator.Caller{Owner: p.Owner, Held: p.Held, IsOperator: p.Role == identity.Operator, RequestID: knownRequestID(c)}
}

// checkHost protects an open server from web pages: a page that a browser shows may resolve its own name to this server's address
// (DNS rebinding), but the Host header still has that name. A request without a Host is from no browser.
func (s *Server) checkHost(_ route, c *fiber.Ctx) error {
	given := string(c.Context().Host())
	host, isLoopback := canonicalHost(withoutPort(given))
	if given == "" || isLoopback || slices.Contains(s.hosts, host) {
		return nil
	}
	return errMisdirected
}

// canonicalHost returns the one way to write a name or an address, and whether it is surely that of the same machine.
func canonicalHost(host string) (canonical string, isLoopback bool) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), addr.IsLoopback()
	}
	host = strings.ToLower(host)
	return host, host == "localhost"
}

// withoutPort returns the host of a Host header, an IPv6 address without its brackets.
func withoutPort(host string) string {
	if address, bracketed := strings.CutPrefix(host, "["); bracketed {
		address, _, _ = strings.Cut(address, "]")
		return address
	}
	name, _, _ := strings.Cut(host, ":")
	return name
}

// authMetrics returns the metrics of who may call. auth is nil if the server is open.
func authMetrics(auth *identity.Authenticator) []prometheus.Collector {
	gauge := func(name, help string, is func() bool) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if is() {
				return 1
			}
			return 0
		})
	}
	return []prometheus.Collector{
		gauge("portmaster_auth_open", "1 if everybody who reaches the server may do everything; 0 if callers need a token.",
			func() bool { return auth == nil }),
		gauge("portmaster_auth_tokens_file_broken", "1 if the tokens file cannot be used, so that older tokens are in use.",
			func() bool { return auth != nil && auth.TokensBroken() }),
	}
}
