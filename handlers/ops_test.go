package handlers

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// ops starts the operators' listener, and returns a client of it.
func (a *api) ops() *api {
	a.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- a.server.ServeOps(l) }()
	a.t.Cleanup(func() {
		a.server.Shutdown(5 * time.Second)
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
			a.t.Error("serve operators:", err)
		}
	})
	own := *a
	own.addr = l.Addr().String()
	return &own
}

// statusOf asks for what openapi.yaml does not describe.
func statusOf(t *testing.T, address string) int {
	t.Helper()
	response, err := http.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// Operators get the probes, metrics and profiles, and nothing else; nobody gets profiles elsewhere.
func TestOps(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	ops := a.ops()
	ops.get("/livez").want(200)
	ops.get("/readyz").want(200)
	ops.do("HEAD", "/readyz", "").want(200)
	contains(t, ops.get("/metrics").want(200).body, "portmaster_redis_up 1\n")
	for _, profile := range []string{"/debug/pprof/", "/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1"} {
		equal(t, profile, statusOf(t, ops.addr+profile), 200)
		path, _, _ := strings.Cut(profile, "?")
		a.get(path).problem(404, "NOT_FOUND")
	}
	equal(t, "/v1/pools", statusOf(t, ops.addr+"/v1/pools"), 404)
	equal(t, "/openapi.yaml", statusOf(t, ops.addr+"/openapi.yaml"), 404)
	a.server.Drain()
	ops.get("/readyz").problem(503, "UNAVAILABLE")
	ops.get("/livez").want(200)
}

// As many idle connections as the API serves do not make the probes fail.
func TestOpsUnderAFlood(t *testing.T) {
	const limit = 200
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.Concurrency = limit })
	ops := a.ops()
	for range limit {
		a.dial()
	}
	soon(t, "all are open", func() bool { return a.server.connections.Open() >= limit })
	a.client.CloseIdleConnections()
	equal(t, "/livez of the API", statusOf(t, a.addr+"/livez"), 503)
	ops.get("/livez").want(200)
	ops.get("/readyz").want(200)
	contains(t, ops.get("/metrics").want(200).body, "portmaster_redis_up 1\n")
}
