package handlers

import (
	"fmt"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// The ways to write a cool-down, and how answers write it.
func TestCooldownSetting(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	r := a.post("/v1/services", `{"name":"django","start":5000,"end":5009,"cooldown":"1m30s"}`).want(201)
	equal(t, "cooldown", read[service](r).Cooldown, 90)
	equal(t, "read", a.get("/v1/services/django").body, r.body)
	for _, test := range []struct{ given, shown string }{
		{`90`, "90"}, {`0.25`, "0.25"}, {`0`, "0"}, {`"0s"`, "0"}, {`"0"`, "0"}, {`"250ms"`, "0.25"}, {`2592000`, "2592000"}, {`"720h"`, "2592000"},
	} {
		r := a.put("/v1/services/django", `{"start":5000,"end":5009,"cooldown":`+test.given+`}`).want(200)
		contains(t, r.body, `"end":5009,"cooldown":`+test.shown+`,"created"`)
	}
	a.put("/v1/services/django", `{"start":5000,"end":5009,"cooldown":60}`).want(200)
	equal(t, "absent", read[service](a.put("/v1/services/django", `{"start":5000,"end":5009}`).want(200)).Cooldown, 0)
	for _, bad := range []string{`-1`, `"-1s"`, `2592001`, `"721h"`, `0.0001`, `"1us"`, `1e3`, `null`, `true`, `"soon"`, `{}`, `[1]`, `99999999999999999999`} {
		a.put("/v1/services/django", `{"start":5000,"end":5009,"cooldown":`+bad+`}`).invalid("cooldown")
		a.post("/v1/services", `{"name":"flask","start":6000,"end":6009,"cooldown":`+bad+`}`).invalid("cooldown")
	}
}

// A port that was released is not offered again before the cool-down is over.
func TestCooldown(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.put("/v1/services/django", `{"start":5000,"end":5001,"cooldown":60}`).want(201)
	a.claim("django", `{"name":"web-01"}`)
	held := a.claim("django", `{"name":"web-02"}`)
	a.delete("/v1/services/django/ports/web-01").want(204)
	equal(t, "ports", a.service("django").Ports, ports{Total: 2, Allocated: 1, Cooling: 1})
	for _, route := range routesOfRequests {
		r := a.post(route, `{"name":"web-01"}`)
		r.problem(409, "EXHAUSTED")
		equal(t, "Retry-After", r.header.Get("Retry-After"), "60")
		r = a.post(route, `{"name":"web-01","port":5000}`)
		r.problem(409, "PORT_TAKEN")
		equal(t, "Retry-After", r.header.Get("Retry-After"), "60")
	}

	store.Mini.SetTime(noon.Add(time.Minute - time.Millisecond))
	a.post("/v1/services/django/offers", `{"name":"web-01"}`).problem(409, "EXHAUSTED")
	store.Mini.SetTime(noon.Add(time.Minute))
	equal(t, "ports", a.service("django").Ports, ports{Total: 2, Free: 1, Allocated: 1})

	// A rejected offer cools nothing: nobody used the port.
	o := a.offer("django", "web-01")
	a.delete(o.path()).want(204)
	equal(t, "ports", a.service("django").Ports, ports{Total: 2, Free: 1, Allocated: 1})
	equal(t, "at once", a.claim("django", `{"name":"web-01"}`).Port, 5000)

	// A longer cool-down counts at once, and one that is shorter for what is given back from then on.
	a.delete(held.path()).want(204)
	a.put("/v1/services/django", `{"start":5000,"end":5001,"cooldown":"1h"}`).want(200)
	a.put("/v1/services/django", `{"start":5000,"end":5001}`).want(200)
	equal(t, "ports", a.service("django").Ports, ports{Total: 2, Allocated: 1, Cooling: 1})
	a.delete("/v1/services/django/ports/5000").want(204)
	equal(t, "ports", a.service("django").Ports, ports{Total: 2, Free: 1, Cooling: 1})
	store.Mini.SetTime(noon.Add(time.Hour + time.Minute))
	equal(t, "ports", a.service("django").Ports, ports{Total: 2, Free: 2})
}

// A port that rests does so until its time, whatever becomes of its range: cut off and added again, or of another service.
func TestRestOutlivesTheService(t *testing.T) {
	for what, redefine := range map[string]func(a *api){
		"a range cut and widened": func(a *api) {
			a.put("/v1/services/django", `{"start":5005,"end":5005,"cooldown":60}`).want(200)
			a.put("/v1/services/django", `{"start":5000,"end":5005,"cooldown":60}`).want(200)
		},
		"a service defined anew": func(a *api) {
			a.delete("/v1/services/django").want(204)
			a.put("/v1/services/django", `{"start":5000,"end":5005}`).want(201)
		},
		"a range in two steps": func(a *api) {
			a.delete("/v1/services/django").want(204)
			a.put("/v1/services/other", `{"start":5003,"end":5005}`).want(201)
			a.delete("/v1/services/other").want(204)
			a.put("/v1/services/django", `{"start":5001,"end":5001}`).want(201)
			a.put("/v1/services/django", `{"start":5000,"end":5005}`).want(200)
		},
		"a shorter cool-down": func(a *api) { a.put("/v1/services/django", `{"start":5000,"end":5005}`).want(200) },
	} {
		t.Run(what, func(t *testing.T) {
			store := storetest.Mini(t)
			a := newAPI(t, store)
			store.Mini.SetTime(noon)
			a.put("/v1/services/django", `{"start":5000,"end":5005,"cooldown":60}`).want(201)
			a.delete(a.claim("django", `{"name":"cools","port":5001}`).path()).want(204)
			o := read[offer](a.post("/v1/services/django/offers", `{"name":"in-use","port":5003,"count":2}`).want(201))
			a.post(o.path()+"/reject", `{"reason":"in_use"}`).want(204)
			equal(t, "ports", a.service("django").Ports, ports{Total: 6, Free: 3, Cooling: 3})
			redefine(a)
			equal(t, "ports", a.service("django").Ports, ports{Total: 6, Free: 3, Cooling: 3})
			for _, port := range []string{"5001", "5003", "5004"} {
				a.post("/v1/services/django/ports", `{"name":"early","port":`+port+`}`).problem(409, "PORT_TAKEN")
			}
			store.Mini.SetTime(noon.Add(time.Minute))
			equal(t, "ports after the cool-down", a.service("django").Ports, ports{Total: 6, Free: 4, Cooling: 2})
			store.Mini.SetTime(noon.Add(5 * time.Minute))
			equal(t, "ports after the quarantine", a.service("django").Ports, ports{Total: 6, Free: 6})
			a.post("/v1/services/django/ports", `{"name":"all","count":6}`).want(201)
		})
	}
}

// An offer and a lease that ran out cool down as well.
func TestCooldownOfWhatRanOut(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.put("/v1/services/django", `{"start":5000,"end":5002,"cooldown":60}`).want(201)
	a.claim("django", `{"name":"web-01","lease":1800,"count":2}`)
	a.offer("django", "web-02") // half an hour, too
	equal(t, "ports", a.service("django").Ports, ports{Total: 3, Offered: 1, Allocated: 2})
	store.Mini.SetTime(noon.Add(30 * time.Minute))
	equal(t, "ports", a.service("django").Ports, ports{Total: 3, Cooling: 3})
	r := a.post("/v1/services/django/offers", `{"name":"web-01"}`)
	r.problem(409, "EXHAUSTED")
	equal(t, "Retry-After", r.header.Get("Retry-After"), "60")
	store.Mini.SetTime(noon.Add(31 * time.Minute))
	equal(t, "ports", a.service("django").Ports, ports{Total: 3, Free: 3})
	a.claim("django", `{"name":"web-01","count":3}`)
}

// By the real clock of every store.
func TestCooldownIsOver(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.put("/v1/services/django", `{"start":5000,"end":5000,"cooldown":0.3}`).want(201)
		path := a.claim("django", `{"name":"web-01"}`).path()
		began := time.Now()
		a.delete(path).want(204)
		soon(t, "the cool-down is over", func() bool {
			r := a.post("/v1/services/django/ports", `{"name":"web-01"}`)
			if r.status == 201 {
				return true
			}
			r.problem(409, "EXHAUSTED")
			return false
		})
		if took := time.Since(began); took < 299*time.Millisecond { // Redis counts whole milliseconds
			t.Errorf("it was over after %s", took)
		}
	})
}

// A port that was found in use is kept out, and the next offer is another one.
func TestRejectInUse(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	for i, reject := range []func(o offer, body string) answer{
		func(o offer, body string) answer { return a.post(o.path()+"/reject", body) },
		func(o offer, body string) answer { return a.do("DELETE", o.path(), body) },
	} {
		name := fmt.Sprint("django-", i)
		begin := noon.Add(time.Duration(i) * time.Hour)
		store.Mini.SetTime(begin)
		a.put("/v1/services/"+name, fmt.Sprintf(`{"start":%d,"end":%d,"cooldown":60}`, 5000+10*i, 5001+10*i)).want(201)
		o := a.offer(name, "web-01")
		for _, bad := range []string{`{"reason":"ugly"}`, `{"reason":""}`, `{"reason":null}`, `{"reason":1}`, `{"reason":"IN_USE"}`} {
			reject(o, bad).invalid("reason")
		}
		reject(o, `{"reason":"in_use"}`).want(204)
		reject(o, `{"reason":"in_use"}`).want(204)
		reject(o, ``).want(204)
		a.put(o.path(), "").problem(409, "OFFER_REJECTED")
		equal(t, "ports", a.service(name).Ports, ports{Total: 2, Free: 1, Cooling: 1})

		next := a.offer(name, "web-01")
		equal(t, "another", next.Port, o.Port+1)
		r := a.post("/v1/services/"+name+"/offers", fmt.Sprintf(`{"name":"web-02","port":%d}`, o.Port))
		r.problem(409, "PORT_TAKEN")
		equal(t, "Retry-After", r.header.Get("Retry-After"), "300")
		store.Mini.SetTime(begin.Add(5 * time.Minute))
		equal(t, "ports", a.service(name).Ports, ports{Total: 2, Free: 1, Offered: 1})
		equal(t, "free again", a.offer(name, "web-02").Port, o.Port)
	}
	contains(t, a.get("/metrics").body, "portmaster_ports_in_use_total 2\n")
}

// A block that is in use is kept out as a whole; a server may keep nothing out.
func TestQuarantine(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5003")
		o := read[offer](a.post("/v1/services/django/offers", `{"name":"web-01","count":3}`).want(201))
		a.post(o.path()+"/reject", `{"reason":"in_use"}`).want(204)
		equal(t, "ports", a.service("django").Ports, ports{Total: 4, Free: 1, Cooling: 3})
		equal(t, "another", a.offer("django", "web-01").Port, 5003)
		a.put("/v1/services/django", `{"start":5003,"end":5003}`).want(200) // cuts off what is kept out

		b := newAPI(t, store, func(s *settings) { s.allocator.Quarantine = 0 })
		b.define("flask", "6000-6000")
		o = b.offer("flask", "web-01")
		b.post(o.path()+"/reject", `{"reason":"in_use"}`).want(204)
		equal(t, "kept out no time", b.offer("flask", "web-02").Port, 6000)
	})
}
