package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

func TestCreateService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		r := a.post("/v1/services", `{"name":"django","description":"Größe ist \"5001\"","start":5000,"end":10000}`).want(201)
		equal(t, "Location", r.header.Get("Location"), "/v1/services/django")
		s := read[service](r)
		equal(t, "name", s.Name, "django")
		equal(t, "description", s.Description, `Größe ist "5001"`)
		equal(t, "start", s.Start, 5000)
		equal(t, "end", s.End, 10000)
		equal(t, "ports", s.Ports, ports{Total: 5001, Free: 5001})
		if age := time.Since(s.Created); age < -time.Minute || age > time.Minute {
			t.Errorf("created %s, which is %s ago", s.Created, age)
		}
		equal(t, "the same when read", a.get("/v1/services/django").want(200).body, r.body)

		p := a.post("/v1/services", `{"name":"django","start":20000,"end":20001}`).problem(409, "SERVICE_EXISTS")
		contains(t, p.Detail, "django", "5000-10000")
		equal(t, "the same after that", a.get("/v1/services/django").want(200).body, r.body)
	})
}

// The ranges of a pool never overlap, and the detail says whose is in the way.
func TestRangeOverlap(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("low", "4000-4099")
		a.define("mid", "5000-5999")
		a.define("high", "7000-7000")
		for _, test := range []struct{ what, span, other string }{
			{"the same", "5000-5999", "mid 5000-5999"},
			{"inside", "5500-5600", "mid 5000-5999"},
			{"around", "4900-6100", "mid 5000-5999"},
			{"touching the start", "4900-5000", "mid 5000-5999"},
			{"touching the end", "5999-6100", "mid 5000-5999"},
			{"one port", "7000-7000", "high 7000-7000"},
			{"around all", "1024-49151", "low 4000-4099"},
		} {
			start, end, _ := strings.Cut(test.span, "-")
			body := `{"name":"new","start":` + start + `,"end":` + end + `}`
			for _, r := range []answer{a.post("/v1/services", body), a.put("/v1/services/new", body)} {
				p := r.problem(409, "RANGE_OVERLAP")
				for word := range strings.FieldsSeq(test.other) {
					if !strings.Contains(p.Detail, word) {
						t.Errorf("%s: the detail %q lacks %s", test.what, p.Detail, word)
					}
				}
			}
			a.get("/v1/services/new").problem(404, "SERVICE_NOT_FOUND")
		}
		a.define("before", "4100-4999")
		a.define("after", "6000-6999")
		// A service may move within its own range, and not into another's.
		a.put("/v1/services/mid", `{"start":5001,"end":5998}`).want(200)
		a.put("/v1/services/mid", `{"start":4999,"end":5998}`).problem(409, "RANGE_OVERLAP")
		a.put("/v1/services/mid", `{"start":5001,"end":6000}`).problem(409, "RANGE_OVERLAP")
	})
}

func TestDefineService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		r := a.put("/v1/services/django", `{"name":"django","start":5000,"end":5004,"description":"web"}`).want(201)
		equal(t, "Location", r.header.Get("Location"), "/v1/services/django")
		created := read[service](r).Created
		for i, want := range []int{5000, 5001, 5002} {
			equal(t, "port", a.accept(a.offer("django", fmt.Sprint("web-", i))).Port, want)
		}

		// A description that is absent is empty; created stays.
		s := read[service](a.put("/v1/services/django", `{"start":5000,"end":5004}`).want(200))
		equal(t, "description", s.Description, "")
		equal(t, "created", s.Created, created)

		// Widened both ways: the ports in use stay, and there are more.
		s = read[service](a.put("/v1/services/django", `{"start":4999,"end":5005}`).want(200))
		equal(t, "ports", s.Ports, ports{Total: 7, Free: 4, Allocated: 3})

		// Narrowed both ways, as far as the ports in use allow.
		contains(t, a.put("/v1/services/django", `{"start":5001,"end":5005}`).problem(409, "RANGE_IN_USE").Detail, "5000", "allocated")
		contains(t, a.put("/v1/services/django", `{"start":4999,"end":5001}`).problem(409, "RANGE_IN_USE").Detail, "5002", "allocated")
		equal(t, "all as before", read[service](a.get("/v1/services/django")).Ports, s.Ports)
		s = read[service](a.put("/v1/services/django", `{"start":5000,"end":5002}`).want(200))
		equal(t, "ports", s.Ports, ports{Total: 3, Allocated: 3})
		a.post("/v1/services/django/offers", `{"name":"web-3"}`).problem(409, "EXHAUSTED")

		// A port that is on offer is in use as well; once it is rejected it is not.
		a.put("/v1/services/django", `{"start":5000,"end":5003}`).want(200)
		o := a.offer("django", "web-3")
		contains(t, a.put("/v1/services/django", `{"start":5000,"end":5002}`).problem(409, "RANGE_IN_USE").Detail, "5003", "offer")
		a.delete(o.path()).want(204)
		a.put("/v1/services/django", `{"start":5000,"end":5002}`).want(200)
		a.delete("/v1/services/django/ports/5002").want(204)
		a.put("/v1/services/django", `{"start":5000,"end":5001}`).want(200)

		// Every port of a range that grew again is handed out, once.
		a.put("/v1/services/django", `{"start":4998,"end":5003}`).want(200)
		seen := map[int]bool{5000: true, 5001: true}
		for i := range 4 {
			o := a.offer("django", fmt.Sprint("new-", i))
			if seen[o.Port] || o.Port < 4998 || o.Port > 5003 {
				t.Errorf("port %d was handed out again, or is outside", o.Port)
			}
			seen[o.Port] = true
		}
		a.post("/v1/services/django/offers", `{"name":"one-more"}`).problem(409, "EXHAUSTED")
	})
}

func TestServiceInvalid(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	long := strings.Repeat("ä", 128) // 256 bytes
	a.post("/v1/services", `{"name":"edges","start":1024,"end":49151,"description":"`+long+`"}`).want(201)
	a.delete("/v1/services/edges").want(204)
	for _, test := range []struct{ body, fields string }{
		{`{}`, "name start end"},
		{`{"name":"django"}`, "start end"},
		{`{"name":"django","start":5000}`, "end end"}, // outside, and below start
		{`{"name":"django","start":1023,"end":2000}`, "start"},
		{`{"name":"django","start":2000,"end":49152}`, "end"},
		{`{"name":"django","start":-1,"end":70000}`, "start end"},
		{`{"name":"django","start":5001,"end":5000}`, "end"},
		{`{"name":"-","start":5001,"end":5002}`, "name"},
		{`{"name":"no spaces","start":0,"end":0,"description":"` + long + `ä"}`, "name description start end"},
	} {
		a.post("/v1/services", test.body).invalid(strings.Fields(test.fields)...)
	}
	a.put("/v1/services/django", `{"start":5001,"end":5000}`).invalid("end")
	a.put("/v1/services/django", `{"name":"flask","start":5000,"end":5001}`).invalid("name")
	a.put("/v1/services/django", `{"name":"","start":5000,"end":5001}`).invalid("name")
	a.put("/v1/services/-django", `{"start":5000,"end":5001}`).invalid("name")
	a.get("/v1/services/-django").invalid("service")
	a.delete("/v1/services/-django").invalid("service")
	equal(t, "services", a.get("/v1/services").want(200).body, "[]")
}

// The bounds of ranges are settings.
func TestServiceWithinTheSettings(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.allocator.PortMin, s.allocator.PortMax = 2000, 2999 })
	a.define("all", "2000-2999")
	a.put("/v1/services/below", `{"start":1999,"end":1999}`).invalid("start", "end")
	a.put("/v1/services/above", `{"start":3000,"end":3000}`).invalid("start", "end")
}

// A range that meets Linux's own ephemeral ports is allowed, and warned of.
func TestServiceWarnings(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for name, test := range map[string]struct {
		span   string
		warned bool
	}{
		"below":  {"30000-32767", false},
		"first":  {"32768-32768", true},
		"inside": {"40000-40010", true},
	} {
		a.define(name, test.span)
		s := read[service](a.get("/v1/services/" + name))
		if warned := len(s.Warnings) > 0; warned != test.warned {
			t.Errorf("%s: warnings %q", test.span, s.Warnings)
		} else if warned {
			contains(t, s.Warnings[0], "32768-60999")
		}
	}
}

func TestRemoveService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.delete("/v1/services/django").problem(404, "SERVICE_NOT_FOUND")
		a.define("django", "5000-5009")
		held := a.accept(a.offer("django", "web-01"))
		contains(t, a.delete("/v1/services/django").problem(409, "SERVICE_IN_USE").Detail, "5000", "allocated")
		a.delete("/v1/services/django/ports/web-01").want(204)
		open := a.offer("django", "web-02")
		contains(t, a.delete("/v1/services/django").problem(409, "SERVICE_IN_USE").Detail, fmt.Sprint(open.Port), "offer")
		a.post(open.path()+"/reject", "").want(204)
		a.delete("/v1/services/django").want(204)
		a.get("/v1/services/django").problem(404, "SERVICE_NOT_FOUND")
		a.delete("/v1/services/django").problem(404, "SERVICE_NOT_FOUND")
		a.define("flask", "5000-5009") // the range is free

		// Defined anew, it remembers nobody; only the fence goes on.
		a.delete("/v1/services/flask").want(204)
		a.define("django", "5000-5009")
		equal(t, "ports", read[service](a.get("/v1/services/django")).Ports, ports{Total: 10, Free: 10})
		if again := a.accept(a.offer("django", "web-01")); again.Port != held.Port || again.Fence <= held.Fence {
			t.Errorf("%+v after %+v", again, held)
		}
	})
}

// The secrets of a service that was removed open nothing in one of the same name.
func TestOldSecretsOpenNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		accepted := a.offer("django", "web-01")
		a.accept(accepted)
		a.delete("/v1/services/django/ports/web-01").want(204)
		rejected := a.offer("django", "web-02")
		a.delete(rejected.path()).want(204)
		a.delete("/v1/services/django").want(204)
		a.get(accepted.path()).problem(404, "SERVICE_NOT_FOUND")
		a.put(accepted.path(), "").problem(404, "SERVICE_NOT_FOUND")
		// A rejected one is remembered for a while, so that rejecting can be repeated.
		a.put(rejected.path(), "").problem(409, "OFFER_REJECTED")
		a.delete(rejected.path()).want(204)

		a.define("django", "5000-5009")
		for i := range 3 { // the same ports and names have holders again
			a.accept(a.offer("django", fmt.Sprintf("web-0%d", i)))
		}
		a.get(accepted.path()).problem(404, "OFFER_NOT_FOUND")
		a.put(accepted.path(), "").problem(404, "OFFER_NOT_FOUND")
		a.delete(accepted.path()).problem(404, "OFFER_NOT_FOUND")
		a.get(rejected.path()).problem(409, "OFFER_REJECTED")
		a.put(rejected.path(), "").problem(409, "OFFER_REJECTED")
		equal(t, "ports", read[service](a.get("/v1/services/django")).Ports, ports{Total: 10, Free: 7, Allocated: 3})
	})
}

func TestListServices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		equal(t, "no services", a.get("/v1/services").want(200).body, "[]")
		a.define("c", "3000-3999")
		a.define("a", "5000-5999")
		a.define("b", "4000-4999")
		equal(t, "by range", names(pages[service](a, "/v1/services", 2)), "c b a")
		equal(t, "like", read[[]service](a.get("/v1/services"))[0].Ports, ports{Total: 1000, Free: 1000})
	})
}

func (s service) name() string { return s.Name }

// names joins the names of a list's items.
func names[T interface{ name() string }](items []T) string {
	var all []string
	for _, item := range items {
		all = append(all, item.name())
	}
	return strings.Join(all, " ")
}

// pages walks a list by its Link headers until the end. No page but the last may be short.
func pages[T any](a *api, path string, limit int) (all []T) {
	a.t.Helper()
	next := fmt.Sprintf("%s?limit=%d", path, limit)
	for range 100 {
		r := a.get(next).want(200)
		items := read[[]T](r)
		all = append(all, items...)
		link := r.header.Get("Link")
		if link == "" {
			return all
		}
		if len(items) != limit {
			a.t.Errorf("%s: %d items, and there are more", next, len(items))
		}
		next = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	}
	a.t.Fatalf("%s never ends", path)
	return nil
}

func TestServiceLimits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store, func(s *settings) { s.allocator.MaxServices, s.allocator.MaxPools = 2, 2 })
		a.define("a", "5000-5000")
		a.define("b", "5001-5001")
		a.post("/v1/services", `{"name":"c","start":5002,"end":5002}`).problem(409, "LIMIT_REACHED")
		a.put("/v1/services/c", `{"start":5002,"end":5002}`).problem(409, "LIMIT_REACHED")
		a.put("/v1/services/b", `{"start":5001,"end":5002}`).want(200)
		a.put("/v1/pools/second/services/a", `{"start":5000,"end":5000}`).want(201)
		a.post("/v1/pools/third/services", `{"name":"a","start":5000,"end":5000}`).problem(409, "LIMIT_REACHED")
		a.delete("/v1/pools/second/services/a").want(204)
		a.put("/v1/pools/third/services/a", `{"start":5000,"end":5000}`).want(201)
		equal(t, "the pools", a.get("/v1/pools").want(200).body, `[{"name":"default","services":2},{"name":"third","services":1}]`)
	})
}
