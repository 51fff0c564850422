package handlers

import (
	_ "embed"
	"net/url"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// route is an entry of the route table.
type route struct {
	method    string
	path      string // below the mount point
	operation string // its name in metrics
	access    *access
	query     []string
	handle    func(*Server, *fiber.Ctx) error
}

// The query parameters of routes that list, and of those that take requests.
var (
	ofList     = []string{"limit", "cursor"}
	ofHolds    = append([]string{"limit", "cursor"}, ofFilter...)
	ofFree     = []string{"limit"}
	ofRelease  = []string{"reason"}
	ofTargets  = []string{"host"}
	ofRequests = []string{"wait"}
	ofHistory  = []string{"port", "name", "owner", "since", "until", "at", "limit", "cursor"}
	ofEvents   = []string{"last_event_id"}
)

// The routes of a pool. They are mounted twice: at /v1 for the pool "default", and at /v1/pools/{pool} for any.
var poolRoutes = []route{
	{"POST", "/services", "createService", defining, nil, (*Server).createService},
	{"GET", "/services", "listServices", reading, ofList, (*Server).listServices},
	{"GET", "/services/:service", "readService", reading, nil, (*Server).readService},
	{"PUT", "/services/:service", "defineService", defining, nil, (*Server).defineService},
	{"PATCH", "/services/:service", "changeService", defining, nil, (*Server).changeService},
	{"DELETE", "/services/:service", "removeService", defining, nil, (*Server).removeService},
	{"GET", "/services/:service/map", "readMap", reading, ofList, (*Server).readMap},

	{"GET", "/services/:service/free", "freePorts", reading, ofFree, (*Server).freePorts},
	{"GET", "/services/:service/waiting", "waitingCalls", reading, ofList, (*Server).waitingCalls},

	{"GET", "/services/:service/history", "history", reading, ofHistory, (*Server).history},
	{"GET", "/services/:service/events", "serviceEvents", reading, ofEvents, (*Server).serviceEvents},
	{"GET", "/events", "poolEvents", reading, ofEvents, (*Server).poolEvents},

	{"POST", "/services/:service/offers", "offer", acquiring, ofRequests, (*Server).offer},
	{"GET", "/services/:service/offers", "listOffers", reading, ofHolds, (*Server).listOffers},
	{"GET", "/services/:service/offers/:secret", "readOffer", holding, nil, (*Server).readOffer},
	{"POST", "/services/:service/offers/:secret/accept", "accept", holding, nil, (*Server).accept},
	{"PUT", "/services/:service/offers/:secret", "accept", holding, nil, (*Server).accept},
	{"POST", "/services/:service/offers/:secret/reject", "reject", holding, nil, (*Server).reject},
	{"DELETE", "/services/:service/offers/:secret", "reject", holding, nil, (*Server).reject},

	{"POST", "/services/:service/ports", "claim", acquiring, ofRequests, (*Server).claim},
	{"GET", "/services/:service/ports", "listAllocations", reading, ofHolds, (*Server).listAllocations},
	{"DELETE", "/services/:service/ports", "releaseMatching", releasing, ofFilter, (*Server).releaseMatching},
	{"GET", "/services/:service/ports/:port", "readAllocation", reading, nil, (*Server).readAllocation},
	{"PATCH", "/services/:service/ports/:port", "changeLabels", holding, nil, (*Server).changeLabels},
	{"POST", "/services/:service/ports/:port/renew", "renew", holding, nil, (*Server).renew},
	{"DELETE", "/services/:service/ports/:port", "release", releasing, ofRelease, (*Server).release},

	{"GET", "/services/:service/targets", "listTargets", reading, ofTargets, (*Server).listTargets},
	{"GET", "/targets", "listPoolTargets", reading, ofTargets, (*Server).listPoolTargets},
}

// The routes of the whole server.
var serverRoutes = []route{
	{"GET", "/v1/pools", "listPools", reading, ofList, (*Server).listPools},
	{"GET", "/livez", "live", everybody, nil, (*Server).live},
	{"GET", "/readyz", "ready", everybody, nil, (*Server).ready},
	{"GET", "/metrics", "metrics", scraping, nil, (*Server).scrape},
	{"GET", "/openapi.yaml", "openapi", everybody, nil, (*Server).openapi},
}

// The two places where poolRoutes are mounted.
const (
	defaultMount = "/v1"
	poolMount    = "/v1/pools/:pool"
)

func (s *Server) mount() {
	for _, r := range serverRoutes {
		s.add(r)
	}
	for _, mount := range []string{defaultMount, poolMount} {
		for _, r := range poolRoutes {
			r.path = mount + r.path
			s.add(r)
		}
	}
	s.mountPages()
}

func (s *Server) add(r route) {
	if strings.HasPrefix(r.path, "/v1/") { // elsewhere Prometheus and load balancers may send any query
		r.handle = strict(r)
	}
	r.handle = s.authorized(r)
	handler := s.observe(r)
	s.app.Add(r.method, r.path, handler)
	if r.method == fiber.MethodGet {
		s.app.Add(fiber.MethodHead, r.path, handler)
	}
}

// param returns a parameter of the request's path. It is a copy: Fiber overwrites its strings with the connection's next
// request, while an abandoned call may still be queued for Redis.
func param(c *fiber.Ctx, name string) string { return unescape(strings.Clone(c.Params(name))) }

// holder returns the port or the instance name in the request's path. Of a name every character may be percent-encoded, and / has to be.
func holder(c *fiber.Ctx) string {
	encoded := param(c, "port")
	if name, err := url.PathUnescape(encoded); err == nil {
		return name
	}
	return encoded
}

// pool returns the pool in the request's path, or the default one.
func pool(c *fiber.Ctx) string {
	if pool := param(c, "pool"); pool != "" {
		return pool
	}
	return allocator.DefaultPool
}

// base returns the path below which the routes of the request's pool are, for a client behind a proxy as well.
func base(c *fiber.Ctx) string {
	if pool := param(c, "pool"); pool != "" {
		return prefix(c) + "/v1/pools/" + pool
	}
	return prefix(c) + defaultMount
}

// page reads the query of a list. A limit that is not a number becomes 0, which the allocator refuses as out of bounds.
func page(c *fiber.Ctx) (cursor string, limit int) {
	limit = allocator.MaxPage
	if text := c.Query("limit"); text != "" {
		if limit, _ = strconv.Atoi(text); strconv.Itoa(limit) != text { // such as "+5" and "05"
			limit = 0
		}
	}
	return strings.Clone(c.Query("cursor")), limit
}

//go:embed openapi.yaml
var openAPI []byte

// openapi: GET /openapi.yaml
func (s *Server) openapi(c *fiber.Ctx) error {
	c.Set(fiber.HeaderContentType, "application/yaml")
	c.Response().SetBodyRaw(openAPI)
	return nil
}
