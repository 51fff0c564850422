package handlers

import (
	"fmt"
	"testing"

	"portmaster/allocator/storetest"
)

// Pools know nothing of each other: the same service, range, name and port in each.
func TestPoolsAreSeparate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		equal(t, "no pools", a.get("/v1/pools").want(200).body, "[]")
		for pool, name := range map[string]string{"/v1": "default", "/v1/pools/host-1": "host-1", "/v1/pools/host-2": "host-2"} {
			equal(t, "no services", a.get(pool+"/services").want(200).body, "[]")
			r := a.post(pool+"/services", `{"name":"django","start":5000,"end":5009}`).want(201)
			equal(t, "Location", r.header.Get("Location"), pool+"/services/django")
			r = a.post(pool+"/services/django/offers", `{"name":"web-01"}`).want(201)
			o := read[offer](r)
			equal(t, "port", o.Port, 5000)
			equal(t, "Location", r.header.Get("Location"), pool+"/services/django/offers/"+o.Secret)
			r = a.put(pool+"/services/django/offers/"+o.Secret, "").want(201)
			equal(t, "Location", r.header.Get("Location"), pool+"/services/django/ports/5000")
			for _, path := range []string{
				"/services", "/services/django", "/services/django/ports", "/services/django/ports/5000",
			} {
				contains(t, a.get(pool+path).want(200).body, `"pool":"`+name+`"`)
			}
			for _, other := range []string{"/v1", "/v1/pools/host-1", "/v1/pools/host-2"} {
				if other != pool && a.get(other+"/services/django/offers/"+o.Secret).status != 404 {
					t.Errorf("a secret of %s is known in %s", pool, other)
				}
			}
		}
		a.delete("/v1/pools/host-1/services/django/ports/5000").want(204)
		a.delete("/v1/pools/host-1/services/django").want(204)
		a.get("/v1/pools/host-1/services/django").problem(404, "SERVICE_NOT_FOUND")
		a.get("/v1/pools/host-2/services/django").want(200)

		// The pool of /v1 has a name, too.
		equal(t, "default", a.get("/v1/pools/default/services/django").want(200).body, a.get("/v1/services/django").want(200).body)
	})
}

func TestListPools(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		for i, pool := range []string{"b", "c", "a", "B", "b.1"} {
			for n := range i + 1 {
				a.put(fmt.Sprintf("/v1/pools/%s/services/s%d", pool, n), fmt.Sprintf(`{"start":%d,"end":%d}`, 5000+n, 5000+n)).want(201)
			}
		}
		a.get("/v1/pools/read-only/services").want(200)                                                   // a look makes no pool
		a.put("/v1/pools/b/services/overlaps", `{"start":5000,"end":5000}`).problem(409, "RANGE_OVERLAP") // nor unmakes one
		a.put("/v1/pools/emptied/services/s", `{"start":5000,"end":5000}`).want(201)
		a.delete("/v1/pools/emptied/services/s").want(204)
		for limit := 1; limit < 7; limit++ {
			equal(t, fmt.Sprint("pages of ", limit), names(pages[pooled](a, "/v1/pools", limit)), "B a b b.1 c")
		}
		equal(t, "the first", read[[]pooled](a.get("/v1/pools"))[0], pooled{"B", 4})
	})
}

type pooled struct {
	Name     string
	Services int
}

func (p pooled) name() string { return p.Name }

func TestPoolInvalid(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for _, pool := range []string{"-", "a%7Db", "a%2Fb", "{a}", "a:b"} {
		a.get("/v1/pools/" + pool + "/services").invalid("pool")
		a.put("/v1/pools/"+pool+"/services/django", `{"start":5000,"end":5009}`).invalid("pool")
		a.get("/v1/pools/" + pool + "/services/django").invalid("pool")
		a.get("/v1/pools/" + pool + "/services/django/ports").invalid("pool")
		a.delete("/v1/pools/" + pool + "/services/django/ports/5000").invalid("pool")
	}
	equal(t, "no pools", a.get("/v1/pools").want(200).body, "[]")
}
