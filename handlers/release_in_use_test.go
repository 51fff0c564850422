package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// What is released as in use rests for the quarantine, or for the cool-down if that is longer, and is counted once.
func TestReleaseInUse(t *testing.T) {
	for cooldown, lasts := range map[string]time.Duration{"0": 5 * time.Minute, "60": 5 * time.Minute, "600": 10 * time.Minute} {
		t.Run("a cool-down of "+cooldown+" s", func(t *testing.T) {
			store := storetest.Mini(t)
			a := newAPI(t, store, func(s *settings) { s.allocator.History = 100 })
			store.Mini.SetTime(noon)
			a.put("/v1/services/django", `{"start":5000,"end":5005,"cooldown":`+cooldown+`}`).want(201)
			plain := a.claim("django", `{"name":"web-01"}`)
			leased := a.claim("django", `{"name":"web-02","count":2,"lease":3600,"labels":{"job":"4711"}}`)
			a.delete(plain.path()+"?reason=in_use", "If-Match", fmt.Sprintf(`"%d"`, plain.Fence)).want(204)
			for range 2 {
				a.delete(leased.path()+"?reason=in_use", "Portmaster-Secret", leased.Secret).want(204)
			}
			contains(t, a.get("/metrics").body, "portmaster_ports_in_use_total 2\n")
			equal(t, "ports", a.service("django").Ports, ports{Total: 6, Free: 3, Cooling: 3})
			a.claim("django", `{"name":"web-01"}`) // the names are free
			a.claim("django", `{"name":"web-02"}`)
			var events []string
			for _, e := range read[[]struct {
				Event       string
				Port, Count int
				Fence       int64
			}](a.get("/v1/services/django/history?port=5002")) {
				events = append(events, fmt.Sprintf("%s %d+%d %v", e.Event, e.Port, e.Count, e.Fence == leased.Fence))
			}
			equal(t, "events", strings.Join(events, ", "), "in_use 5001+2 false, released 5001+2 true, allocated 5001+2 true")

			store.Mini.SetTime(noon.Add(lasts - time.Millisecond))
			equal(t, "ports at the end", a.service("django").Ports, ports{Total: 6, Free: 1, Allocated: 2, Cooling: 3})
			for _, port := range []string{"5000", "5001", "5002"} {
				a.post("/v1/services/django/ports", `{"name":"early","port":`+port+`}`).problem(409, "PORT_TAKEN")
			}
			store.Mini.SetTime(noon.Add(lasts))
			equal(t, "ports after it", a.service("django").Ports, ports{Total: 6, Free: 4, Allocated: 2})
			a.post("/v1/services/django/ports", `{"name":"block","port":5000,"count":3}`).want(201)
		})
	}
}

// A reason needs the proof of any release, must be the one that there is, and is of one allocation.
func TestReleaseInUseIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		held := a.claim("django", `{"name":"web-01"}`)
		for _, reason := range []string{"", "IN_USE", "in_use,in_use", "gone", "in_use&reason=in_use"} {
			a.delete(held.path() + "?reason=" + reason).invalid("reason")
		}
		a.delete("/v1/services/django/ports?name=web-01&reason=in_use").invalid("reason")
		a.delete(held.path()+"?reason=in_use", "If-Match", `"1"`).problem(412, "PRECONDITION_FAILED")
		a.delete(held.path()+"?reason=in_use", "Portmaster-Secret", "7d1c2a3e-3d53-4d64-a2c4-0a1dd8a7f3a1").problem(403, "SECRET_MISMATCH")
		a.delete("/v1/services/django/ports/nobody?reason=in_use").problem(404, "PORT_NOT_FOUND")
		equal(t, "the holder", read[allocation](a.get(held.path())), hidden(held))
		contains(t, a.get("/metrics").body, "portmaster_ports_in_use_total 0\n")
	})
}
