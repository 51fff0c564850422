package handlers

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

// The walk of django-portmaster, which this API comes from.
func TestWalk(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		for _, way := range []struct {
			accept, reject func(*api, offer) answer
		}{
			{
				accept: func(a *api, o offer) answer { return a.post(o.path()+"/accept", "") },
				reject: func(a *api, o offer) answer { return a.post(o.path()+"/reject", "") },
			},
			{
				accept: func(a *api, o offer) answer { return a.put(o.path(), "{}") },
				reject: func(a *api, o offer) answer { return a.delete(o.path()) },
			},
		} {
			a := newAPI(t, store)
			a.post("/v1/services", `{"name":"django","description":"the first service","start":5000,"end":10000}`).want(201)

			r := a.post("/v1/services/django/offers", `{"name":"web-01"}`).want(201)
			web := read[offer](r)
			equal(t, "Location", r.header.Get("Location"), web.path())
			equal(t, "service", web.Service, "django")
			equal(t, "name", web.Name, "web-01")
			equal(t, "port", web.Port, 5000)
			equal(t, "open for", web.Expires.Sub(web.Created), 30*time.Minute)
			if id, err := uuid.Parse(web.Secret); err != nil || id.Version() != 4 {
				t.Errorf("the secret %q is no random UUID", web.Secret)
			}
			equal(t, "the offer read", a.get(web.path()).want(200).body, r.body)

			r = way.accept(a, web).want(201)
			held := read[allocation](r)
			equal(t, "Location", r.header.Get("Location"), "/v1/services/django/ports/5000")
			equal(t, "service", held.Service, "django")
			equal(t, "name", held.Name, "web-01")
			equal(t, "port", held.Port, 5000)
			again := way.accept(a, web).want(200)
			equal(t, "accepted again", again.body, r.body)
			equal(t, "Location again", again.header.Get("Location"), "/v1/services/django/ports/5000")
			way.reject(a, web).problem(409, "OFFER_ACCEPTED")
			a.get(web.path()).problem(409, "OFFER_ACCEPTED")

			equal(t, "the ports", a.get("/v1/services/django/ports").want(200).body, "["+r.body+"]")
			equal(t, "by port", a.get("/v1/services/django/ports/5000").want(200).body, r.body)
			equal(t, "by name", a.get("/v1/services/django/ports/web-01").want(200).body, r.body)

			db := a.offer("django", "db-01")
			equal(t, "the next port", db.Port, 5001)
			equal(t, "ports", read[service](a.get("/v1/services/django")).Ports, ports{Total: 5001, Free: 4999, Offered: 1, Allocated: 1})
			way.reject(a, db).want(204)
			way.reject(a, db).want(204)
			way.accept(a, db).problem(409, "OFFER_REJECTED")
			a.get(db.path()).problem(409, "OFFER_REJECTED")
			equal(t, "ports", read[service](a.get("/v1/services/django")).Ports, ports{Total: 5001, Free: 5000, Allocated: 1})
			equal(t, "its port goes to the next", a.offer("django", "db-01").Port, 5001)

			a.delete("/v1/services/django/ports/5000").want(204)
			store.Prefix += "x" // the other way begins anew
		}
	})
}

// With a secret of the caller's own the call may be repeated.
func TestOwnSecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.define("flask", "6000-6009")
		secret := uuid.NewString()
		body := `{"name":"web-01","secret":"` + secret + `"}`

		first := a.post("/v1/services/django/offers", body).want(201)
		o := read[offer](first)
		equal(t, "secret", o.Secret, secret)
		again := a.post("/v1/services/django/offers", body).want(200)
		equal(t, "the same offer", again.body, first.body)
		equal(t, "the same place", again.header.Get("Location"), first.header.Get("Location"))

		// It belongs to that name and service.
		a.post("/v1/services/django/offers", `{"name":"web-02","secret":"`+secret+`"}`).invalid("secret")
		a.post("/v1/services/flask/offers", body).invalid("secret")
		a.get("/v1/services/flask/offers/"+secret).problem(404, "OFFER_NOT_FOUND")
		a.put("/v1/services/flask/offers/"+secret, "").problem(404, "OFFER_NOT_FOUND")
		a.delete("/v1/services/flask/offers/"+secret).problem(404, "OFFER_NOT_FOUND")

		a.accept(o)
		a.post("/v1/services/django/offers", body).problem(409, "OFFER_ACCEPTED")

		rejected := strings.Replace(body, secret, uuid.NewString(), 1)
		rejected = strings.Replace(rejected, "web-01", "web-02", 1)
		a.delete(read[offer](a.post("/v1/services/django/offers", rejected).want(201)).path()).want(204)
		a.post("/v1/services/django/offers", rejected).problem(409, "OFFER_REJECTED")
	})
}

// An instance name has one port of a service at a time, on offer or allocated.
func TestNameTaken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.define("flask", "6000-6009")
		o := a.offer("django", "web-01")
		contains(t, a.post("/v1/services/django/offers", `{"name":"web-01"}`).problem(409, "NAME_TAKEN").Detail, "web-01", "5000")
		a.accept(o)
		contains(t, a.post("/v1/services/django/offers", `{"name":"web-01"}`).problem(409, "NAME_TAKEN").Detail, "web-01", "5000")
		a.offer("flask", "web-01")  // another service
		a.offer("django", "WEB-01") // another name
		a.delete("/v1/services/django/ports/web-01").want(204)
		a.offer("django", "web-01")
	})
}

func TestExhausted(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5001")
		a.accept(a.offer("django", "web-01"))
		o := a.offer("django", "web-02")

		// The offer may expire, and it is known when.
		r := a.post("/v1/services/django/offers", `{"name":"web-03"}`)
		r.problem(409, "EXHAUSTED")
		seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
		if err != nil || seconds < 1700 || seconds > 1800 {
			t.Errorf("Retry-After: %q, want half an hour", r.header.Get("Retry-After"))
		}
		a.accept(o)
		r = a.post("/v1/services/django/offers", `{"name":"web-03"}`)
		r.problem(409, "EXHAUSTED")
		equal(t, "Retry-After where nobody knows", r.header.Get("Retry-After"), "")
		// Who has a port hears of that.
		a.post("/v1/services/django/offers", `{"name":"web-01"}`).problem(409, "NAME_TAKEN")

		a.delete("/v1/services/django/ports/5000").want(204)
		equal(t, "port", a.offer("django", "web-03").Port, 5000)
	})
}

// The port that has been free the longest comes first.
func TestOfferPicksTheLongestFree(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		for i := range 4 {
			a.accept(a.offer("django", fmt.Sprint("web-", i)))
		}
		for _, port := range []string{"5002", "5000", "5001"} {
			a.delete("/v1/services/django/ports/" + port).want(204)
			time.Sleep(2 * time.Millisecond)
		}
		for i, want := range []int{5002, 5000, 5001, 5004} {
			equal(t, "port", a.offer("django", fmt.Sprint("next-", i)).Port, want)
		}
	})
}

// An offer that is not accepted in time is gone, and its port and name can be had again at once. On miniredis no TTL ever
// runs out here, so that it is the script's clock that decides.
func TestOfferExpires(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store, func(s *settings) { s.allocator.OfferTTL = 50 * time.Millisecond })
		a.define("django", "5000-5000")
		o := a.offer("django", "web-01")
		soon(t, "the offer expires", func() bool { return a.get(o.path()).status == 404 })
		a.get(o.path()).problem(404, "OFFER_NOT_FOUND")
		a.put(o.path(), "").problem(404, "OFFER_NOT_FOUND")
		a.delete(o.path()).problem(404, "OFFER_NOT_FOUND")
		equal(t, "offers", a.get("/v1/services/django/offers").want(200).body, "[]")
		equal(t, "ports", read[service](a.get("/v1/services/django")).Ports, ports{Total: 1, Free: 1})

		next := a.offer("django", "web-01")
		equal(t, "the port again", next.Port, o.Port)
		a.put(o.path(), "").problem(404, "OFFER_NOT_FOUND")
		soon(t, "the next offer expires", func() bool { return a.get(next.path()).status == 404 })
		equal(t, "the port for another", a.offer("django", "web-02").Port, o.Port)
		soon(t, "no offer keeps a service", func() bool { return a.delete("/v1/services/django").status == 204 })
	})
}

// The last moment of an offer, told by the millisecond.
func TestOfferExpiresInTime(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	noon := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	store.Mini.SetTime(noon)
	a.define("django", "5000-5000")
	o := a.offer("django", "web-01")
	equal(t, "created", o.Created, noon)
	equal(t, "expires", o.Expires, noon.Add(30*time.Minute))

	store.Mini.SetTime(o.Expires.Add(-time.Millisecond))
	a.get(o.path()).want(200)
	equal(t, "offers", len(read[[]offer](a.get("/v1/services/django/offers"))), 1)
	r := a.post("/v1/services/django/offers", `{"name":"web-02"}`)
	r.problem(409, "EXHAUSTED")
	equal(t, "Retry-After", r.header.Get("Retry-After"), "1")

	store.Mini.SetTime(o.Expires.Add(time.Millisecond))
	a.put(o.path(), "").problem(404, "OFFER_NOT_FOUND")
	equal(t, "offers", a.get("/v1/services/django/offers").want(200).body, "[]")
	next := a.offer("django", "web-02")
	equal(t, "port", next.Port, 5000)

	// What was accepted stays when the time of its offer is over, and its secret is forgotten.
	a.accept(next)
	store.Mini.SetTime(next.Expires.Add(time.Second))
	store.Mini.FastForward(time.Hour)
	a.get("/v1/services/django/ports/5000").want(200)
	a.put(next.path(), "").problem(404, "OFFER_NOT_FOUND")
}

// Accepting again gives the same allocation, and none where that was released since.
func TestAcceptAfterRelease(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		o := a.offer("django", "web-01")
		a.accept(o)
		a.delete("/v1/services/django/ports/5000").want(204)
		a.put(o.path(), "").problem(404, "OFFER_NOT_FOUND")
		other := a.accept(a.offer("django", "web-02"))
		a.put(o.path(), "").problem(404, "OFFER_NOT_FOUND")
		equal(t, "holder", read[allocation](a.get("/v1/services/django/ports/5000")), other)
	})
}

func TestListOffers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.get("/v1/services/django/offers").problem(404, "SERVICE_NOT_FOUND")
		a.define("django", "5000-5999")
		equal(t, "no offers", a.get("/v1/services/django/offers").want(200).body, "[]")
		var open []string
		for i := range 7 {
			o := a.offer("django", fmt.Sprint("web-", i))
			switch i {
			case 2:
				a.accept(o)
			case 4:
				a.delete(o.path()).want(204)
			default:
				open = append(open, o.Name)
			}
		}
		for limit := 1; limit < 7; limit++ {
			equal(t, fmt.Sprint("pages of ", limit), names(pages[offer](a, "/v1/services/django/offers", limit)), strings.Join(open, " "))
		}
	})
}

func (o offer) name() string { return o.Name }

func TestOfferInvalid(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	for _, test := range []struct{ body, fields string }{
		{`{}`, "name"},
		{`{"name":""}`, "name"},
		{`{"name":"5000/"}`, "name"},
		{`{"name":"a b"}`, "name"},
		{`{"name":"web-01","secret":"guess"}`, "secret"},
		{`{"name":"web-01","secret":"5D0E2C8B-2F4A-4C39-9B1E-0C6F3A7D8E91"}`, "secret"},
		{`{"name":"web-01","secret":"{5d0e2c8b-2f4a-4c39-9b1e-0c6f3a7d8e91}"}`, "secret"},
		{`{"name":"web-01","secret":"6f8ffc86d98a49ba848aa7cbaaea9360"}`, "secret"},
		{`{"name":"..","secret":"guess"}`, "name secret"},
	} {
		a.post("/v1/services/django/offers", test.body).invalid(strings.Fields(test.fields)...)
	}
	a.post("/v1/services/-/offers", `{"name":"-","secret":"-"}`).invalid("service", "name", "secret")
	a.post("/v1/services/flask/offers", `{"name":"web-01"}`).problem(404, "SERVICE_NOT_FOUND")

	// The routes of one offer.
	unknown := uuid.NewString()
	for _, r := range []struct{ method, path string }{
		{"GET", ""}, {"PUT", ""}, {"DELETE", ""}, {"POST", "/accept"}, {"POST", "/reject"},
	} {
		a.do(r.method, "/v1/services/django/offers/guess"+r.path, "").invalid("secret")
		a.do(r.method, "/v1/services/-/offers/guess"+r.path, "").invalid("service", "secret")
		a.do(r.method, "/v1/services/django/offers/"+unknown+r.path, "").problem(404, "OFFER_NOT_FOUND")
		a.do(r.method, "/v1/services/flask/offers/"+unknown+r.path, "").problem(404, "SERVICE_NOT_FOUND")
		if r.method != "GET" {
			a.do(r.method, "/v1/services/django/offers/"+unknown+r.path, `{"name":"web-01"}`).invalid("name")
		}
	}
}

// An offer that was accepted is not made again within the minute, whatever has become of its port: released without the secret, or
// at the end of its lease.
func TestLateRepeatOfAnAcceptedOffer(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(*api, allocation){
		"released":          func(a *api, held allocation) { a.delete(held.path()).want(204) },
		"its lease is over": func(a *api, _ allocation) { a.store.Mini.SetTime(noon.Add(2 * time.Second)) },
		"its service is gone": func(a *api, held allocation) {
			a.delete(held.path()).want(204)
			a.delete("/v1/services/django").want(204)
		},
		"somebody else has it":      func(a *api, held allocation) { a.delete(held.path()).want(204); a.claim("django", `{"name":"web-02"}`) },
		"its name has it once more": func(a *api, held allocation) { a.delete(held.path()).want(204); a.claim("django", `{"name":"web-01"}`) },
	} {
		for _, accept := range []string{"accept", "claim"} {
			t.Run(what+" after "+accept, func(t *testing.T) {
				store := storetest.Mini(t)
				a := newAPI(t, store)
				store.Mini.SetTime(noon)
				a.define("django", "5000-5009")
				secret := uuid.NewString()
				body := `{"name":"web-01","lease":1,"secret":"` + secret + `"}`
				offered := read[offer](a.post("/v1/services/django/offers", body).want(201))
				var held allocation
				if accept == "accept" {
					held = a.accept(offered)
				} else {
					held = a.claim("django", `{"name":"web-01","secret":"`+secret+`"}`)
				}
				end(a, held)
				a.post("/v1/services/django/offers", body).problem(409, "OFFER_ACCEPTED")
				a.post("/v1/services/django/ports", body).problem(409, "OFFER_ACCEPTED")
				store.Mini.SetTime(noon.Add(time.Minute))
				store.Mini.FastForward(time.Minute)
				a.put("/v1/services/django", `{"start":5000,"end":5009}`)
				a.delete("/v1/services/django/ports/web-01")
				a.post("/v1/services/django/offers", body).want(201)
			})
		}
	}
}
