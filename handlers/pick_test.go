package handlers

import (
	"testing"

	"portmaster/allocator/storetest"
)

// A service that picks by name leads a name to the same port each time, and through its own cooldown.
func TestPickByName(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		r := a.post("/v1/services", `{"name":"web","ranges":[{"start":5000,"end":5004},{"start":6000,"end":6004}],"cooldown":60,"pick":"name"}`).want(201)
		contains(t, r.body, `"cooldown":60,"pick":"name","created"`)
		contains(t, a.get("/v1/services").want(200).body, `"pick":"name"`)
		release := func(name string) { a.delete("/v1/services/web/ports/" + name).want(204) }
		wants := func(body string, port int) {
			t.Helper()
			equal(t, body, a.claim("web", body).Port, port)
		}
		// Which ports these are must not change from one version to the next.
		for range 2 {
			wants(`{"name":"web-01"}`, 6004)
			wants(`{"name":"web-02"}`, 6001)
			wants(`{"name":"farm","count":2}`, 5000) // 8 blocks of 2 ports
			release("web-01")
			release("web-02")
			release("farm")
		}
		a.post("/v1/services/web/ports", `{"name":"other","port":6004}`).problem(409, "PORT_TAKEN")
		a.post("/v1/services/web/ports", `{"name":"web-01","port":5000}`).problem(409, "PORT_TAKEN")
		wants(`{"name":"other","prefer":6004}`, 5002)
		wants(`{"name":"web-01","port":6004}`, 6004)
		wants(`{"name":"web-02","prefer":6001}`, 6001)
		release("web-02")

		// An offer of a port that cools down, which is rejected, ends no cooldown.
		before := a.service("web").Ports
		offered := a.offer("web", "web-02")
		equal(t, "offered", offered.Port, 6001)
		a.post("/v1/services/web/offers/"+offered.Secret+"/reject", "").want(204)
		equal(t, "after a rejection", a.service("web").Ports, before)
		a.post("/v1/services/web/ports", `{"name":"other-2","port":6001}`).problem(409, "PORT_TAKEN")

		// What is quarantined is out for everybody.
		offered = a.offer("web", "web-02")
		equal(t, "offered again", offered.Port, 6001)
		a.post("/v1/services/web/offers/"+offered.Secret+"/reject", `{"reason":"in_use"}`).want(204)
		a.post("/v1/services/web/ports", `{"name":"web-02","port":6001}`).problem(409, "PORT_TAKEN")

		contains(t, a.do("PATCH", "/v1/services/web", `{"description":"x"}`).want(200).body, `"pick":"name"`)
		r = a.do("PATCH", "/v1/services/web", `{"pick":null}`).want(200)
		equal(t, "after null", r.body, a.do("PATCH", "/v1/services/web", `{"pick":"rested"}`).want(200).body)
		release("web-01")
		a.post("/v1/services/web/ports", `{"name":"web-01","port":6004}`).problem(409, "PORT_TAKEN")
		contains(t, a.do("PATCH", "/v1/services/web", `{"pick":"name"}`).want(200).body, `"pick":"name"`)
		a.post("/v1/services/web/ports", `{"name":"web-01","port":6004}`).problem(409, "PORT_TAKEN")
		a.put("/v1/services/web", `{"ranges":[{"start":5000,"end":5004},{"start":6000,"end":6004}]}`).want(200)
		if text := a.get("/v1/services/web").body; text != a.do("PATCH", "/v1/services/web", `{}`).want(200).body {
			t.Errorf("after PUT: %s", text)
		}
	})
}

func TestWrongPick(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		for _, pick := range []string{`"hash"`, `""`, `"Name"`, `1`, `{}`, `["name"]`, `null`} {
			a.put("/v1/services/web", `{"start":5000,"end":5009,"pick":`+pick+`}`).invalid("pick")
		}
		a.do("PATCH", "/v1/services/web", `{"pick":"hash"}`).invalid("pick") // although there is no such service
		a.do("PATCH", "/v1/services/web", `{"pick":"name","start":5000}`).problem(404, "SERVICE_NOT_FOUND")
		a.put("/v1/services/web", `{"start":5000,"end":5009,"pick":"rested"}`).want(201)
		for _, pick := range []string{`"hash"`, `""`, `1`, `{"a":null}`, `[null]`} {
			a.do("PATCH", "/v1/services/web", `{"pick":`+pick+`}`).invalid("pick")
		}
		a.do("PATCH", "/v1/services/web", `{"pick":null,"cooldown":null}`).invalid("cooldown")
	})
}
