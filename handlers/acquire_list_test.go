package handlers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

// Of a list all are served, or none.
func TestListOfWants(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5005")
		secret := uuid.NewString()
		body := `[{"name":"web-01","secret":"` + secret + `"},{"name":"web-02","port":5000},{"name":"web-03","count":2},{"name":"web-04","prefer":5004}]`
		r := a.post("/v1/services/django/offers", body).want(201)
		equal(t, "Location", r.header.Get("Location"), "")
		offers := read[[]offer](r)
		equal(t, "in the order of the body", names(offers), "web-01 web-02 web-03 web-04")
		equal(t, "secret", offers[0].Secret, secret)
		equal(t, "port", offers[1].Port, 5000)
		equal(t, "count", offers[2].Count, 2)
		equal(t, "preferred", offers[3].Port, 5004)
		equal(t, "ports", a.service("django").Ports, ports{Total: 6, Free: 1, Offered: 5})
		for _, o := range offers {
			equal(t, "read", read[offer](a.get(o.path())), o)
		}

		again := fmt.Sprintf(`[{"name":"web-01","secret":"%s"}]`, secret)
		equal(t, "again", read[[]offer](a.post("/v1/services/django/offers", again).want(200))[0], offers[0])
		more := fmt.Sprintf(`[{"name":"web-01","secret":"%s"},{"name":"web-05"}]`, secret)
		equal(t, "one is new", names(read[[]offer](a.post("/v1/services/django/offers", more).want(201))), "web-01 web-05")
		equal(t, "ports", a.service("django").Ports, ports{Total: 6, Offered: 6})
	})
}

// Where one want cannot be served none is, and the answer names it.
func TestListOfWantsFails(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5003")
		a.define("flask", "6000-6009")
		a.offer("django", "taken")
		accepted, rejected, elsewhere := a.offer("django", "accepted"), a.offer("django", "rejected"), a.offer("flask", "elsewhere")
		a.accept(accepted)
		a.delete(rejected.path()).want(204)
		before := a.service("django").Ports
		for _, test := range []struct{ second, code, field string }{
			{`{"name":"taken"}`, "NAME_TAKEN", "[1].name"},
			{`{"name":"b","port":5000}`, "PORT_TAKEN", "[1].port"},
			{`{"name":"rejected","secret":"` + rejected.Secret + `"}`, "OFFER_REJECTED", "[1].secret"},
			{`{"name":"b","secret":"` + elsewhere.Secret + `"}`, "INVALID", "[1].secret"},
			{`{"name":"b","port":6000}`, "INVALID", "[1].port"},
			{`{"name":"b","prefer":6000}`, "INVALID", "[1].prefer"},
			{`{"name":"b","count":3}`, "EXHAUSTED", ""},
			{`{"name":"b","count":4}`, "INVALID", "body"},
			{`{"name":"b","count":5}`, "INVALID", "[1].count"},
			{`{"name":"b"},{"name":"c"}`, "EXHAUSTED", ""},
		} {
			for _, route := range routesOfWants {
				r := a.post(route, `[{"name":"a"},`+test.second+`]`)
				status := 409
				if test.code == "INVALID" {
					status = 400
				}
				p := r.problem(status, test.code)
				if test.field == "" {
					equal(t, test.second+": faults", len(p.Errors), 0)
				} else if len(p.Errors) != 1 || p.Errors[0].Field != test.field {
					t.Errorf("%s: want a fault at %s\n%s", test.second, test.field, r)
				}
			}
		}
		accept := `[{"name":"a"},{"name":"accepted","secret":"` + accepted.Secret + `"}]`
		p := a.post("/v1/services/django/offers", accept).problem(409, "OFFER_ACCEPTED")
		equal(t, "field", p.Errors[0].Field, "[1].secret")
		equal(t, "all is as before", a.service("django").Ports, before)
		a.post("/v1/services/django/ports", accept).want(201) // to a claim it is its own
	})
}

// The most that a call may ask for.
func TestMostWants(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5299")
		list := func(blocks int) string { // of 5 ports, among 100
			var wants []string
			for i := range 100 {
				count := 1
				if i < blocks {
					count = 5
				}
				wants = append(wants, fmt.Sprintf(`{"name":"web-%d","secret":"%s","lease":"720h","count":%d}`, i, uuid.NewString(), count))
			}
			return "[" + strings.Join(wants, ",") + "]"
		}
		body := list(39)
		first := a.post("/v1/services/django/ports", body).want(201)
		equal(t, "ports", a.service("django").Ports, ports{Total: 300, Free: 44, Allocated: 256})
		equal(t, "again", a.post("/v1/services/django/ports", body).want(200).body, first.body)
		p := a.post("/v1/services/django/ports", list(40)).problem(400, "INVALID")
		equal(t, "fault", p.Errors[0].Field, "body")
	})
}

// What the range can never meet is refused at once, whether the call would wait or not.
func TestImpossibleWants(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.claim("django", `{"name":"holder"}`)
		for body, field := range map[string]string{
			`{"name":"big","count":11}`:                       "count",
			`[{"name":"a"},{"name":"big","count":11}]`:        "[1].count",
			`[{"name":"a","count":6},{"name":"b","count":5}]`: "body",
		} {
			for _, route := range routesOfWants {
				for _, query := range []string{"", "?wait=60s"} {
					p := a.post(route+query, body).problem(400, "INVALID")
					equal(t, body+query, p.Errors[0].Field, field)
				}
			}
		}
		equal(t, "nobody waits", a.service("django").Waiting, 0)
	})
}

// The order of a list decides nothing: what must be goes before what may be, and long blocks before short ones.
func TestListInAnyOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		wants := []string{
			`{"name":"prefers","prefer":5005}`, `{"name":"needs","port":5005}`, `{"name":"short","count":2}`, `{"name":"long","count":3}`,
			`{"name":"any"}`,
		}
		for turn := range wants {
			service := fmt.Sprintf("s%d", turn)
			first := 5000 + 100*turn
			a.define(service, fmt.Sprintf("%d-%d", first, first+7)) // rows of 5 and 2 beside the port that is needed
			body := strings.ReplaceAll("["+strings.Join(append(wants[turn:len(wants):len(wants)], wants[:turn]...), ",")+"]", "5005", fmt.Sprint(first+5))
			ports := map[string]int{}
			for _, each := range read[[]allocation](a.post("/v1/services/"+service+"/ports", body).want(201)) {
				ports[each.Name] = each.Port - first
			}
			equal(t, "needs", ports["needs"], 5)
			equal(t, "long", ports["long"], 0)
			equal(t, "short", ports["short"], 3)
			equal(t, "the others", ports["any"]+ports["prefers"], 6+7)
		}
	})
}

// A list hears of all names and ports that it cannot have, and of all ports that there are not.
func TestAllFaultsOfAList(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.claim("django", `{"name":"web-01","port":5001}`)
		a.claim("django", `{"name":"web-02","port":5002,"lease":60}`)
		for body, want := range map[string]string{
			`[{"name":"a","port":4999},{"name":"b"},{"name":"c","port":5009,"count":2},{"name":"d","prefer":5010}]`: "INVALID [0].port [2].port [3].prefer",
			`[{"name":"a","port":5001},{"name":"b","port":5003},{"name":"c","port":5002}]`:                          "PORT_TAKEN [0].port [2].port",
			`[{"name":"web-01"},{"name":"b","port":5003},{"name":"web-02","port":5001}]`:                            "NAME_TAKEN [0].name [2].name [2].port",
		} {
			for _, route := range routesOfWants {
				r := a.post(route, body)
				p := read[problem](r)
				got := p.Code
				for _, f := range p.Errors {
					got += " " + f.Field
				}
				equal(t, body, got, want)
				if p.Code == "PORT_TAKEN" && r.header.Get("Retry-After") != "" {
					t.Errorf("it says when a port comes free that is held for ever: %s", r)
				}
			}
		}
		equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 8, Allocated: 2})
	})
}
