package handlers

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

// The lease of an offer is that of the allocation, unless who accepts says another.
func TestLeaseOfAnOffer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		for i, test := range []struct {
			offered, accepted string
			want              time.Duration
		}{
			{`"lease":90`, ``, 90 * time.Second},
			{`"lease":90`, `{}`, 90 * time.Second},
			{`"lease":90`, `{"lease":"2m"}`, 2 * time.Minute},
			{`"count":1`, `{"lease":1.5}`, 1500 * time.Millisecond},
			{`"count":1`, ``, 0},
		} {
			body := fmt.Sprintf(`{"name":"web-%d",%s}`, i, test.offered)
			o := read[offer](a.post("/v1/services/django/offers", body).want(201))
			r := a.post(o.path()+"/accept", test.accepted).want(201)
			held := read[allocation](r)
			if test.want == 0 {
				equal(t, body+" never ends", held.Expires, time.Time{})
			} else {
				equal(t, body, held.Expires.Sub(held.Created), test.want)
			}
			equal(t, "accepted again, whatever the lease", a.put(o.path(), `{"lease":600}`).want(200).body, r.body)
		}
		for _, bad := range []string{`0`, `"0s"`, `0.5`, `"721h"`, `-1`, `null`, `"soon"`, `1.0005`, `[]`} {
			o := offer{Service: "django", Secret: uuid.NewString()}
			a.put(o.path(), `{"lease":`+bad+`}`).invalid("lease")
			a.post(o.path()+"/accept", `{"lease":`+bad+`}`).invalid("lease")
		}
	})
}

// A lease that is not renewed ends by itself, to the millisecond, and its port and name are free at once.
func TestLeaseEnds(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.define("django", "5000-5000")
	held := a.claim("django", `{"name":"web-01","lease":60}`)
	equal(t, "expires", held.Expires, noon.Add(time.Minute))

	store.Mini.SetTime(held.Expires.Add(-time.Millisecond))
	equal(t, "read", read[allocation](a.get(held.path()).want(200)), hidden(held))
	equal(t, "listed", len(read[[]allocation](a.get("/v1/services/django/ports"))), 1)
	equal(t, "ports", a.service("django").Ports, ports{Total: 1, Allocated: 1})
	r := a.post("/v1/services/django/ports", `{"name":"web-02"}`)
	r.problem(409, "EXHAUSTED")
	equal(t, "Retry-After", r.header.Get("Retry-After"), "1")
	a.delete("/v1/services/django").problem(409, "SERVICE_IN_USE")

	store.Mini.SetTime(held.Expires)
	a.get(held.path()).problem(404, "PORT_NOT_FOUND")
	a.get("/v1/services/django/ports/web-01").problem(404, "PORT_NOT_FOUND")
	a.delete(held.path()).problem(404, "PORT_NOT_FOUND")
	a.delete(held.path(), "Portmaster-Secret", held.Secret).problem(404, "PORT_NOT_FOUND")
	a.post(held.path()+"/renew", `{"secret":"`+held.Secret+`"}`).problem(404, "PORT_NOT_FOUND")
	equal(t, "listed", a.get("/v1/services/django/ports").body, "[]")
	equal(t, "ports", a.service("django").Ports, ports{Total: 1, Free: 1})
	next := a.claim("django", `{"name":"web-01"}`)
	equal(t, "the port again", next.Port, 5000)
	a.post(held.path()+"/renew", `{"secret":"`+held.Secret+`"}`).problem(403, "SECRET_MISMATCH")
}

// An accepted offer whose lease ran out is gone, and so is a service's last user.
func TestAcceptedLeaseEnds(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.define("django", "5000-5009")
	o := a.offer("django", "web-01")
	a.put(o.path(), `{"lease":1}`).want(201)
	a.put(o.path(), "").want(200)
	store.Mini.SetTime(noon.Add(time.Second))
	a.put(o.path(), "").problem(404, "OFFER_NOT_FOUND")
	a.get(o.path()).problem(404, "OFFER_NOT_FOUND")
	a.delete("/v1/services/django").want(204)
}

// By the real clock of every store.
func TestLeaseRunsOut(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5003")
		block := a.claim("django", `{"name":"web-01","count":3,"lease":1}`)
		kept := a.claim("django", `{"name":"web-02","lease":1}`)
		a.post(kept.path()+"/renew", `{"secret":"`+kept.Secret+`","lease":"1h"}`).want(200)
		equal(t, "ports", a.service("django").Ports, ports{Total: 4, Allocated: 4})
		soon(t, "the lease ends", func() bool { return a.get(block.path()).status == 404 })
		for _, port := range []string{"5001", "5002"} {
			a.get("/v1/services/django/ports/"+port).problem(404, "PORT_NOT_FOUND")
		}
		equal(t, "ports", a.service("django").Ports, ports{Total: 4, Free: 3, Allocated: 1})
		equal(t, "listed", names(read[[]allocation](a.get("/v1/services/django/ports"))), "web-02")
		equal(t, "its ports again", a.claim("django", `{"name":"web-01","count":3}`).Port, 5000)
	})
}

func TestRenew(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.define("django", "5000-5009")
	held := a.claim("django", `{"name":"web-01","lease":60}`)
	renew := func(way, more string) answer {
		return a.post("/v1/services/django/ports/"+way+"/renew", `{"secret":"`+held.Secret+`"`+more+`}`)
	}
	at := noon
	for _, test := range []struct {
		way, more string
		lasts     time.Duration
	}{
		{"5000", ``, time.Minute}, // as before
		{"web-01", ``, time.Minute},
		{"5000", `,"lease":"1h"`, time.Hour},
		{"web-01", ``, time.Hour}, // as it is by now
		{"5000", `,"lease":1.5`, 1500 * time.Millisecond},
	} {
		at = at.Add(30 * time.Second)
		store.Mini.SetTime(at)
		r := renew(test.way, test.more).want(200)
		equal(t, "ETag", r.header.Get("ETag"), fmt.Sprintf(`"%d"`, held.Fence))
		renewed := read[allocation](r)
		equal(t, test.way+test.more, renewed.Expires.Sub(at), test.lasts)
		want := hidden(held)
		want.Expires = renewed.Expires
		equal(t, "all else", renewed, want)
		equal(t, "read", a.get(held.path()).body, r.body)
	}
	store.Mini.SetTime(at.Add(1500 * time.Millisecond))
	renew("5000", ``).problem(404, "PORT_NOT_FOUND")
}

// Who knows an allocation's secret, of a claim or of an offer, may renew it.
func TestRenewProves(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		own := uuid.NewString()
		body := `{"secret":"` + own + `"}`
		a.post("/v1/services/django/ports/5000/renew", body).problem(404, "SERVICE_NOT_FOUND")
		a.define("django", "5000-5009")
		a.post("/v1/services/django/ports/5000/renew", body).problem(404, "PORT_NOT_FOUND")
		a.post("/v1/services/django/offers", `{"name":"web-01","secret":"`+own+`"}`).want(201)
		a.post("/v1/services/django/ports/5000/renew", body).problem(404, "PORT_NOT_FOUND") // not accepted yet
		a.put("/v1/services/django/offers/"+own, "").want(201)

		// What never ended needs to be told when it shall.
		a.post("/v1/services/django/ports/5000/renew", body).invalid("lease")
		leased := a.post("/v1/services/django/ports/5000/renew", `{"secret":"`+own+`","lease":3600}`).want(200)
		if read[allocation](leased).Expires.IsZero() {
			t.Error("it has no end")
		}
		a.post("/v1/services/django/ports/5000/renew", body).want(200)

		stranger := uuid.NewString()
		a.post("/v1/services/django/ports/5000/renew", `{"secret":"`+stranger+`"}`).problem(403, "SECRET_MISMATCH")
		a.post("/v1/services/django/ports/web-01/renew", `{"secret":"`+stranger+`","lease":60}`).problem(403, "SECRET_MISMATCH")
	})
}

func TestRenewInvalid(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	held := a.claim("django", `{"name":"web-01","lease":60}`)
	for _, test := range []struct{ body, field string }{
		{`{}`, "secret"},
		{`{"lease":60}`, "secret"},
		{`{"secret":""}`, "secret"},
		{`{"secret":"guess"}`, "secret"},
		{`{"secret":null}`, "secret"},
		{`{"secret":"` + held.Secret + `","lease":0}`, "lease"},
		{`{"secret":"` + held.Secret + `","lease":null}`, "lease"},
		{`{"secret":"` + held.Secret + `","lease":"721h"}`, "lease"},
		{`{"secret":"` + held.Secret + `","name":"web-01"}`, "name"},
		{`[{"secret":"` + held.Secret + `"}]`, "body"},
	} {
		a.post(held.path()+"/renew", test.body).invalid(test.field)
	}
	a.post(held.path()+"/renew", "", "Content-Type", "application/json").invalid("body")
	a.post("/v1/services/-/ports/-/renew", `{"secret":"guess","lease":0}`).invalid("service", "port", "secret", "lease")
	equal(t, "all as before", read[allocation](a.get(held.path())), hidden(held))
}
