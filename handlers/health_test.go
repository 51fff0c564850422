package handlers

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

func TestHealth(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		equal(t, "live", a.get("/livez").want(200).body, `{"status":"live"}`)
		equal(t, "ready", a.get("/readyz").want(200).body, `{"status":"ready"}`)
	})
}

// A Redis that answers, and may lose what it is given.
func TestReadyAsksWhetherRedisIsFit(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		ready bool
		says  string
	}{
		"evicting":        {[]string{"--maxmemory-policy", "allkeys-lru"}, false, "allkeys-lru"},
		"a replica":       {[]string{"--replicaof", "127.0.0.1", "1"}, false, "no master"},
		"keeping nothing": {[]string{"--appendonly", "no"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			store, _, _ := storetest.Private(t, test.args...)
			a := newAPI(t, store)
			if test.ready {
				a.get("/readyz").want(200)
			} else if got := a.get("/readyz").problem(503, "UNAVAILABLE"); !strings.Contains(got.Detail, test.says) {
				t.Errorf("it says %q", got.Detail)
			}
			a.get("/livez").want(200)
		})
	}
}

// While the server drains, load balancers turn away, and the requests that still come are answered.
func TestDrain(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	a.server.Drain()
	a.get("/readyz").problem(503, "UNAVAILABLE")
	a.get("/livez").want(200)
	a.accept(a.offer("django", "web-01"))
	a.get("/v1/services/django").want(200)
}

// operations are one request for every route that asks Redis: those that change something, and those that read.
func operations(secret string) (changes, reads []request) {
	return []request{
			{"POST", "/v1/services/django/offers", `{"name":"web-09","secret":"` + secret + `"}`},
			{"PUT", "/v1/services/django/offers/" + secret, ""},
			{"POST", "/v1/services/django/offers/" + secret + "/accept", ""},
			{"DELETE", "/v1/services/django/offers/" + secret, ""},
			{"POST", "/v1/services/django/offers/" + secret + "/reject", ""},
			{"POST", "/v1/services/django/ports", `{"name":"web-08","secret":"` + secret + `","lease":60}`},
			{"POST", "/v1/services/django/ports", `[{"name":"web-06"},{"name":"web-07","count":2}]`},
			{"POST", "/v1/services/django/ports?wait=5", `{"name":"web-05"}`},
			{"POST", "/v1/services/django/ports/5000/renew", `{"secret":"` + secret + `","lease":60}`},
			{"DELETE", "/v1/services/django/ports/5000", ""},
			{"DELETE", "/v1/services/django", ""},
			{"PUT", "/v1/services/django", `{"start":5000,"end":5009}`},
			{"POST", "/v1/services", `{"name":"flask","start":6000,"end":6009}`},
		}, []request{
			{"GET", "/readyz", ""},
			{"GET", "/v1/pools", ""},
			{"GET", "/v1/services", ""},
			{"GET", "/v1/services/django", ""},
			{"GET", "/v1/services/django/offers", ""},
			{"GET", "/v1/services/django/offers/" + secret, ""},
			{"GET", "/v1/services/django/ports", ""},
			{"GET", "/v1/services/django/ports/5000", ""},
		}
}

type request struct{ method, path, body string }

func (a *api) send(r request) answer { a.t.Helper(); return a.do(r.method, r.path, r.body) }

// Where Redis is away every call says so at once, nothing is done, and all works again by itself when it is back.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	store, stop, start := storetest.Private(t)
	a := newAPI(t, store)
	a.define("django", "5000-5009")
	held := a.accept(a.offer("django", "web-01"))
	open := a.offer("django", "web-02")

	stop()
	changes, reads := operations(open.Secret)
	for _, r := range append(reads, changes...) {
		began := time.Now()
		answer := a.send(r)
		answer.problem(503, "UNAVAILABLE")
		equal(t, "Retry-After", answer.header.Get("Retry-After"), "1")
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s %s took %s", r.method, r.path, took)
		}
	}
	a.get("/livez").want(200)
	contains(t, a.get("/metrics").want(200).body, "portmaster_redis_up 0", "portmaster_pools_unread +Inf")
	contains(t, a.log.String(), "call failed")

	start()
	soon(t, "ready again", func() bool { return a.get("/readyz").status == 200 })
	soon(t, "on every connection", func() bool { return a.get("/v1/services/django/ports").status == 200 }) // the client dials once a second
	equal(t, "what was held", read[allocation](a.get("/v1/services/django/ports/web-01").want(200)), held)
	a.accept(open)
	equal(t, "services", names(read[[]service](a.get("/v1/services").want(200))), "django")
	contains(t, a.get("/metrics").want(200).body, "portmaster_redis_up 1")
}

// Where Redis took a call and does not answer, a change may have been made, and a read has not failed for good.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	impatient := func(s *settings) { s.allocator.Timeout = 250 * time.Millisecond }
	newAPI(t, store).define("django", "5000-5009")
	secret := uuid.NewString()
	changes, reads := operations(secret)
	offering := changes[0]
	changes = changes[:11] // to define a service two calls are made, of which the first decides nothing
	var apis []*api        // one for each call, since a second on the same connection might wait behind the first
	for range append(reads, changes...) {
		a := newAPI(t, store, impatient)
		// All scripts are known to Redis before it hangs.
		soon(t, "it is served", func() bool { return a.get("/v1/services/django").status == 200 })
		apis = append(apis, a)
	}
	for _, r := range changes {
		if r != offering {
			apis[0].do(r.method, r.path[:len("/v1/services/")]+"nobody"+r.path[len("/v1/services/django"):], r.body).problem(404, "SERVICE_NOT_FOUND")
		}
	}
	apis[0].post("/v1/services/nobody/offers", `{"name":"web-01"}`).problem(404, "SERVICE_NOT_FOUND")

	slept := make(chan error)
	go func() {
		slept <- store.Admin.WithTimeout(20*time.Second).Do(context.Background(), "DEBUG", "SLEEP", "3").Err()
	}()
	time.Sleep(100 * time.Millisecond)
	var calls []*call
	for i, r := range append(reads, changes...) {
		calls = append(calls, apis[i].start(r.method, r.path, r.body))
	}
	for i, c := range calls {
		if answer := c.answer(); i >= len(reads) {
			answer.problem(504, "OUTCOME_UNKNOWN")
		} else {
			answer.problem(503, "UNAVAILABLE")
			equal(t, "Retry-After", answer.header.Get("Retry-After"), "1")
		}
	}
	apis[0].get("/livez").want(200)
	if err := <-slept; err != nil {
		t.Fatal(err)
	}

	// Repeated with the same secret it is done once, whether it was or not.
	a := newAPI(t, store)
	soon(t, "Redis is back", func() bool { return a.get("/readyz").status == 200 })
	a.put("/v1/services/django", `{"start":5000,"end":5009}`)
	own := fmt.Sprintf(`{"name":"web-10","secret":"%s"}`, uuid.NewString())
	first := a.post("/v1/services/django/offers", own).want(201)
	equal(t, "the same", a.post("/v1/services/django/offers", own).want(200).body, first.body)
}
