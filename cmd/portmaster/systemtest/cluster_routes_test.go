//go:build faults

package systemtest

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"portmaster/lua"
)

// TestClusterRoutes takes every route, and so every script that a pool needs, to every master of a Redis Cluster, to one that
// has just become a master, and past slots on their way that hold what belongs to no pool.
func TestClusterRoutes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	server := startPortmaster(t, "portmaster", "PORTMASTER_REDIS_URL="+c.url(), "PORTMASTER_QUARANTINE=1ms")
	server.awaitReady()
	for i := range 3 {
		s := c.shardOf(slots * i / 3)
		c.do(s.master.client.ScriptFlush(t.Context()))
		takeEveryRoute(t, c, server, c.poolsIn(s.from, s.to, 1)[0])
	}

	s := c.shardOf(0)
	if n := s.replica.scripts(); n != 0 {
		t.Errorf("the master to come knows %d scripts already", n)
	}
	c.failOver(s)
	c.awaitSettled()
	takeEveryRoute(t, c, server, c.poolsIn(s.from, s.to, 1)[0])

	define(t, server.url, service{"stays", "web"}, 7000, 7000) // a list of no pools is no key
	for _, key := range []string{"portmaster:pools", "portmaster:deployment"} {
		slot := c.slotOfKey(key)
		m := c.beginMove(slot, c.shardOf(slot).master, c.shardOf((slot+slots/3)%slots).master)
		takeEveryRoute(t, c, server, "default")
		if keys := m.keys(2); !slices.Equal(keys, []string{key}) {
			t.Errorf("the slot of %s has %v", key, keys)
		}
		m.migrate([]string{key})
		takeEveryRoute(t, c, server, "default")
		m.end()
		takeEveryRoute(t, c, server, "default")
	}
}

// routed is one request, and how it is to be answered.
type routed struct {
	method, path, body string
	want               int
}

// send makes the request. status is 0 where no answer came; code is that of an error, or says why none came.
func (r routed) send(server string) (status int, code string) {
	web := http.Client{Timeout: 2 * patience, Transport: &http.Transport{DisableKeepAlives: true}}
	got := request{method: r.method, path: r.path, body: r.body}.send(context.Background(), &web, server)
	return got.status, got.code
}

// everyRoute leads a pool from its first service to none, over every route there is.
func everyRoute(pool string) []routed {
	services := "/v1/pools/" + pool + "/services"
	offers, ports := services+"/web/offers", services+"/web/ports"
	accepted, rejected, claimed, waited := uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	return []routed{
		{"POST", services, `{"name":"web","start":5000,"end":5009}`, 201},
		{"PUT", services + "/web", `{"start":5000,"end":5019}`, 200},
		{"GET", services, "", 200},
		{"GET", services + "/web", "", 200},
		{"GET", services + "/web/map", "", 200},
		{"GET", services + "/web/free", "", 200},
		{"GET", services + "/web/waiting", "", 200},
		{"GET", services + "/web/history", "", 200},
		{"HEAD", services + "/web/events", "", 200}, // with GET it would not end
		{"HEAD", "/v1/pools/" + pool + "/events", "", 200},
		{"POST", offers, `{"name":"web-01","secret":"` + accepted + `"}`, 201},
		{"GET", offers, "", 200},
		{"GET", offers + "/" + accepted, "", 200},
		{"POST", offers + "/" + accepted + "/accept", "", 201},
		{"PUT", offers + "/" + accepted, "", 200},
		{"POST", offers, `{"name":"web-02","secret":"` + rejected + `"}`, 201},
		{"POST", offers + "/" + rejected + "/reject", `{"reason":"in_use"}`, 204},
		{"DELETE", offers + "/" + rejected, "", 204},
		{"GET", ports, "", 200},
		{"GET", ports + "/web-01", "", 200},
		{"GET", services + "/web/targets?host=a", "", 200},
		{"GET", "/v1/pools/" + pool + "/targets?host=a", "", 200},
		{"DELETE", ports + "?owner=ann", "", 200}, // has none
		{"DELETE", services + "/web", "", 409},
		{"DELETE", ports + "/web-01", "", 204},
		{"POST", ports, `{"name":"web-03","secret":"` + claimed + `","lease":60,"port":5000}`, 201},
		{"PATCH", ports + "/web-03", `{"secret":"` + claimed + `","labels":{"job":"4711"}}`, 200},
		{"POST", ports + "/web-03/renew", `{"secret":"` + claimed + `"}`, 200},
		{"POST", ports, `[{"name":"web-04","count":10},{"name":"web-05","count":8},{"name":"web-06"}]`, 201},
		{"POST", offers + "?wait=50ms", `{"name":"web-07"}`, 409},
		{"POST", ports + "/web-03/renew", `{"secret":"` + claimed + `","lease":1}`, 200},
		{"POST", offers + "?wait=30s", `{"name":"web-07","secret":"` + waited + `"}`, 201}, // when that lease is over
		{"DELETE", offers + "/" + waited, "", 204},
		{"DELETE", ports + "?owner=nobody", "", 200},
		{"DELETE", ports + "/web-04", "", 204},
		{"DELETE", ports + "/web-05", "", 204},
		{"DELETE", ports + "/web-06?reason=in_use", "", 204},
		{"DELETE", services + "/web", "", 204},
		{"POST", services, `{"name":"wide","start":6000,"end":6099}`, 201},
		{"POST", services + "/wide/ports", `{"name":"wide-01","count":80}`, 201},
		{"DELETE", services + "/wide/ports/wide-01", "", 204},
		{"PUT", services + "/wide", `{"start":6090,"end":6099}`, 200}, // more ports leave it than one script takes out
		{"PATCH", services + "/wide", `{"exclude":[6095]}`, 200},
		{"DELETE", services + "/wide", "", 204},
		{"GET", "/v1/pools", "", 200},
		{"GET", "/livez", "", 200},
		{"GET", "/readyz", "", 200},
		{"GET", "/metrics", "", 200},
		{"GET", "/openapi.yaml", "", 200},
	}
}

// takeEveryRoute makes a request of every route in a pool, and looks whether the pool's master ran every script.
func takeEveryRoute(t *testing.T, c *cluster, server *replica, pool string) {
	t.Helper()
	for _, r := range everyRoute(pool) {
		if status, code := r.send(server.url); status != r.want {
			t.Errorf("%s %s is answered with %d %s, want %d", r.method, r.path, status, code, r.want)
		}
	}
	master := c.shardOf(c.slotOf(pool)).master
	for name, script := range scripts {
		if known := master.client.ScriptExists(t.Context(), script.Hash).Val(); len(known) != 1 || !known[0] {
			t.Errorf("%s does not know %s.lua: it did not run there", master.command.name, name)
		}
	}
}

// scripts are those that a pool needs.
var scripts = map[string]*lua.Script{
	"define": lua.Define, "remove": lua.Remove, "offer": lua.Offer, "accept": lua.Accept, "reject": lua.Reject, "release": lua.Release,
	"claim": lua.Claim, "renew": lua.Renew, "settle": lua.Settle,
	"heartbeat": lua.Heartbeat, "check_waitlist": lua.CheckWaitlist, "leave_waitlist": lua.LeaveWaitlist,
	"read_waitlist": lua.ReadWaitlist,
	"read_service":  lua.ReadService, "read_services": lua.ReadServices, "list_services": lua.ListServices,
	"read_map": lua.ReadMap, "read_free": lua.ReadFree,
	"read_offer": lua.ReadOffer, "read_allocation": lua.ReadAllocation,
}

// TestEveryRouteIsTaken compares the routes that are taken with those that the server says it has.
func TestEveryRouteIsTaken(t *testing.T) {
	server := startPortmaster(t, "portmaster")
	server.awaitReady()
	response, err := visitor().Get(server.url + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	document, err := openapi3.NewLoader().LoadFromIoReader(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`\\\{[a-z]+\\\}`)
	for path, item := range document.Paths.Map() {
		pattern := regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$")
		for method := range item.Operations() {
			if !slices.ContainsFunc(everyRoute("pool"), func(r routed) bool {
				path, _, _ := strings.Cut(r.path, "?")
				return (r.method == method || r.method == "HEAD" && method == "GET") && pattern.MatchString(path)
			}) {
				t.Errorf("%s %s is not taken", method, path)
			}
		}
	}
}
