package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

// A claim is an offer and its acceptance in one call.
func TestClaim(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.post("/v1/services/django/ports", `{"name":"web-01"}`).problem(404, "SERVICE_NOT_FOUND")
		a.define("django", "5000-5009")

		r := a.post("/v1/services/django/ports", `{"name":"web-01"}`).want(201)
		equal(t, "Location", r.header.Get("Location"), "/v1/services/django/ports/5000")
		claimed := read[allocation](r)
		equal(t, "service", claimed.Service, "django")
		equal(t, "name", claimed.Name, "web-01")
		equal(t, "port", claimed.Port, 5000)
		equal(t, "it has no end", claimed.Expires, time.Time{})
		if id, err := uuid.Parse(claimed.Secret); err != nil || id.Version() != 4 {
			t.Errorf("the secret %q is no random UUID", claimed.Secret)
		}
		for _, way := range []string{"5000", "web-01"} {
			r := a.get("/v1/services/django/ports/" + way).want(200)
			equal(t, "read, without the secret", read[allocation](r), hidden(claimed))
			equal(t, "ETag", r.header.Get("ETag"), fmt.Sprintf(`"%d"`, claimed.Fence))
		}
		equal(t, "listed, without the secret", read[[]allocation](a.get("/v1/services/django/ports"))[0], hidden(claimed))
		equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 9, Allocated: 1})

		a.post("/v1/services/django/ports", `{"name":"web-01"}`).problem(409, "NAME_TAKEN")
		a.post("/v1/services/django/offers", `{"name":"web-01"}`).problem(409, "NAME_TAKEN")
		a.delete(claimed.path(), "Portmaster-Secret", claimed.Secret).want(204)
		equal(t, "the next", a.claim("django", `{"name":"web-02"}`).Port, 5000)
	})
}

// hidden is an allocation as all answers but the first show it.
func hidden(a allocation) allocation {
	a.Secret = ""
	return a
}

func TestClaimInAPool(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.put("/v1/pools/host-1/services/django", `{"start":5000,"end":5009}`).want(201)
	r := a.post("/v1/pools/host-1/services/django/ports", `{"name":"web-01"}`).want(201)
	equal(t, "Location", r.header.Get("Location"), "/v1/pools/host-1/services/django/ports/5000")
	secret := read[allocation](r).Secret
	a.post("/v1/services/django/ports", `{"name":"web-01"}`).problem(404, "SERVICE_NOT_FOUND")
	a.post("/v1/pools/host-1/services/django/ports/web-01/renew", `{"secret":"`+secret+`","lease":"1m"}`).want(200)
}

// With a secret of the caller's own a claim may be repeated for as long as the allocation lives.
func TestClaimAgain(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	a.define("django", "5000-5009")
	a.define("flask", "6000-6009")
	secret := uuid.NewString()
	body := `{"name":"web-01","secret":"` + secret + `"}`

	first := a.post("/v1/services/django/ports", body).want(201)
	equal(t, "secret", read[allocation](first).Secret, secret)
	again := func() {
		t.Helper()
		r := a.post("/v1/services/django/ports", body).want(200)
		equal(t, "the same allocation", r.body, first.body)
		equal(t, "the same place", r.header.Get("Location"), first.header.Get("Location"))
	}
	again()
	// It belongs to that name and service.
	a.post("/v1/services/django/ports", strings.Replace(body, "web-01", "web-02", 1)).invalid("secret")
	a.post("/v1/services/flask/ports", body).invalid("secret")
	a.post("/v1/services/django/offers", body).problem(409, "OFFER_ACCEPTED")

	store.Mini.FastForward(2 * time.Minute) // long after what is remembered of the call itself
	again()
	equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 9, Allocated: 1})
}

// A claim with the secret of an open offer accepts that offer.
func TestClaimOfAnOffer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.offer("django", "web-00")
		o := read[offer](a.post("/v1/services/django/offers", `{"name":"web-01","lease":60}`).want(201))
		body := `{"name":"web-01","secret":"` + o.Secret + `"}`
		claimed := a.claim("django", body)
		equal(t, "its port", claimed.Port, o.Port)
		equal(t, "its lease", claimed.Expires.Sub(claimed.Created), time.Minute)
		equal(t, "again", read[allocation](a.post("/v1/services/django/ports", body).want(200)), claimed)
		equal(t, "accepted again", read[allocation](a.put(o.path(), "").want(200)), hidden(claimed))
		equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 8, Offered: 1, Allocated: 1})

		// Once rejected, or released by its secret, it opens nothing.
		rejected := a.offer("django", "web-02")
		a.delete(rejected.path()).want(204)
		a.post("/v1/services/django/ports", `{"name":"web-02","secret":"`+rejected.Secret+`"}`).problem(409, "OFFER_REJECTED")
		a.delete(claimed.path(), "Portmaster-Secret", o.Secret).want(204)
		for _, route := range []string{"ports", "offers"} {
			p := a.post("/v1/services/django/"+route, body).problem(409, "OFFER_ACCEPTED")
			contains(t, p.Detail, "was accepted, and its port was released")
		}
	})
}

// Each claim of a list has its own secret and fence.
func TestClaimMany(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		secret := uuid.NewString()
		body := `[{"name":"web-01","lease":60},{"name":"web-02","secret":"` + secret + `","count":2},{"name":"web-03","port":5009}]`
		r := a.post("/v1/services/django/ports", body).want(201)
		equal(t, "Location", r.header.Get("Location"), "")
		claimed := read[[]allocation](r)
		equal(t, "in the order of the body", names(claimed), "web-01 web-02 web-03")
		for i, want := range []struct {
			count int
			lease bool
		}{{0, true}, {2, false}, {0, false}} {
			equal(t, "count", claimed[i].Count, want.count)
			equal(t, "leased", !claimed[i].Expires.IsZero(), want.lease)
			equal(t, "read", read[allocation](a.get(claimed[i].path())), hidden(claimed[i]))
		}
		equal(t, "secret", claimed[1].Secret, secret)
		equal(t, "port", claimed[2].Port, 5009)
		if claimed[0].Secret == claimed[2].Secret || claimed[0].Fence == claimed[1].Fence {
			t.Errorf("%+v", claimed)
		}
		equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 6, Allocated: 4})
	})
}
