package handlers

import (
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// A service has the leases that PUT and PATCH give it; null takes one away, and PUT both.
func TestLeaseBoundsOfAService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		path := "/v1/services/django"
		said := func(method, body, want string) {
			t.Helper()
			contains(t, a.do(method, path, body).body, `"cooldown":0`+want+`,"created"`)
			contains(t, a.get(path).body, `"cooldown":0`+want+`,"created"`)
		}
		said("PUT", `{"start":5000,"end":5009,"default_lease":"1m","max_lease":"1h"}`, `,"default_lease":60,"max_lease":3600`)
		said("PATCH", `{"description":"x"}`, `,"default_lease":60,"max_lease":3600`)
		said("PATCH", `{"max_lease":90.5}`, `,"default_lease":60,"max_lease":90.5`)
		said("PATCH", `{"default_lease":null}`, `,"max_lease":90.5`)
		said("PATCH", `{"max_lease":null,"default_lease":"2m"}`, `,"default_lease":120`)
		said("PUT", `{"start":5000,"end":5009}`, ``)

		for _, test := range []struct{ body, field string }{
			{`"default_lease":0`, "default_lease"}, {`"max_lease":"31d"`, "max_lease"}, {`"max_lease":1.0001`, "max_lease"},
			{`"default_lease":"soon"`, "default_lease"}, {`"default_lease":61,"max_lease":60`, "default_lease"},
		} {
			a.put(path, `{"start":5000,"end":5009,`+test.body+`}`).invalid(test.field)
			a.do("PATCH", path, `{`+test.body+`}`).invalid(test.field)
		}
		a.put(path, `{"start":5000,"end":5009,"max_lease":null}`).invalid("max_lease")
		a.do("PATCH", path, `{"cooldown":null,"max_lease":null}`).invalid("cooldown")
		a.do("PATCH", path, `{"default_lease":120}`).want(200)
		a.do("PATCH", path, `{"max_lease":60}`).invalid("default_lease")
	})
}

// Every way to a port, and every renewal, is within the leases of the service.
func TestLeaseBounds(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		path, define := "/v1/services/django", `{"start":5000,"end":5019,"max_lease":3600`
		lasts := func(what string, r answer, want time.Duration) {
			t.Helper()
			got := read[allocation](r)
			if left := time.Until(got.Expires); got.Expires.IsZero() || left > want || left < want-time.Minute {
				t.Errorf("%s lasts until %s, want %s from now", what, got.Expires, want)
			}
		}
		a.put(path, `{"start":5000,"end":5019}`).want(201)
		forever := a.claim("django", `{"name":"forever"}`)
		long := a.claim("django", `{"name":"long","lease":"1d"}`)
		plain := a.offer("django", "plain")
		longer := read[offer](a.post(path+"/offers", `{"name":"longer","lease":"1d"}`).want(201))

		a.put(path, define+`}`).want(200)
		equal(t, "what runs", read[allocation](a.get(long.path())), hidden(long))
		equal(t, "what has no lease", read[allocation](a.get(forever.path())), hidden(forever))
		for _, route := range []string{"/offers", "/ports"} {
			a.post(path+route, `{"name":"x","lease":3600.001}`).invalid("lease")
			a.post(path+route, `[{"name":"x","lease":"2h"},{"name":"y"},{"name":"z","lease":"30d"}]`).invalid("[0].lease", "[2].lease")
			a.post(path+route+"?wait=1s", `{"name":"x","lease":"2h"}`).invalid("lease")
		}
		lasts("a claim", a.post(path+"/ports", `{"name":"claimed"}`).want(201), time.Hour)
		lasts("a claim of a block", a.post(path+"/ports", `{"name":"block","count":2}`).want(201), time.Hour)
		a.put(path, define+`,"default_lease":600}`).want(200)
		lasts("a claim by default", a.post(path+"/ports", `{"name":"default"}`).want(201), 10*time.Minute)
		lasts("a claim of the longest", a.post(path+"/ports", `{"name":"longest","lease":3600}`).want(201), time.Hour)

		a.put("/v1/services/other", `{"start":6000,"end":6009,"default_lease":600}`).want(201)
		lasts("a claim of more than the default", a.post("/v1/services/other/ports", `{"name":"x","lease":"1d"}`).want(201), 24*time.Hour)

		// An offer has the lease that its allocation will have. One that was made before keeps its own, or none.
		o := read[offer](a.post(path+"/offers", `{"name":"offered"}`).want(201))
		equal(t, "the lease of an offer", o.Lease, 600)
		a.put(o.path(), `{"lease":"2h"}`).invalid("lease")
		lasts("an offer accepted", a.put(o.path(), "").want(201), 10*time.Minute)
		a.put(o.path(), `{"lease":"2h"}`).want(200) // again
		lasts("an offer with a longer lease", a.put(longer.path(), "").want(201), 24*time.Hour)
		a.post(path+"/ports", `{"name":"plain","secret":"`+plain.Secret+`","lease":"2h"}`).invalid("lease")
		claimed := a.claim("django", `{"name":"plain","secret":"`+plain.Secret+`"}`)
		equal(t, "an offer without a lease", claimed.Expires, time.Time{})

		renew := func(of allocation, lease string) answer {
			return a.post(of.path()+"/renew", `{"secret":"`+of.Secret+`"`+lease+`}`)
		}
		renew(long, `,"lease":"2h"`).invalid("lease")
		equal(t, "what was not renewed", read[allocation](a.get(long.path())), hidden(long))
		lasts("a longer lease renewed", renew(long, "").want(200), time.Hour)
		lasts("renewed again", renew(long, "").want(200), time.Hour)
		lasts("renewed for less", renew(long, `,"lease":60`).want(200), time.Minute)
		lasts("what had no lease", renew(forever, "").want(200), 10*time.Minute)
		a.do("PATCH", path, `{"default_lease":null,"max_lease":null}`).want(200)
		lasts("renewed without bounds", renew(long, `,"lease":"2h"`).want(200), 2*time.Hour)
	})
}
