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

// routesOfRequests are the two that take wants.
var routesOfRequests = []string{"/v1/services/django/offers", "/v1/services/django/ports"}

func TestPort(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		o := read[offer](a.post("/v1/services/django/offers", `{"name":"web-01","port":5005}`).want(201))
		equal(t, "port", o.Port, 5005)
		// On offer it is known when it comes free, and allocated it is not.
		for _, route := range routesOfRequests {
			r := a.post(route, `{"name":"web-02","port":5005}`)
			contains(t, r.problem(409, "PORT_TAKEN").Detail, "5005")
			if seconds, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || seconds < 1700 || seconds > 1800 {
				t.Errorf("Retry-After: %q, want half an hour", r.header.Get("Retry-After"))
			}
		}
		a.accept(o)
		for _, route := range routesOfRequests {
			r := a.post(route, `{"name":"web-02","port":5005}`)
			r.problem(409, "PORT_TAKEN")
			equal(t, "Retry-After", r.header.Get("Retry-After"), "")
			a.post(route, `{"name":"web-01","port":5006}`).problem(409, "NAME_TAKEN")
			for _, outside := range []int{1, 4999, 5010, 65535} {
				a.post(route, fmt.Sprintf(`{"name":"web-02","port":%d}`, outside)).invalid("port")
			}
			a.post(route, `{"name":"web-02","port":5008,"count":3}`).invalid("port")
			a.post(route, `{"name":"web-02","port":5004,"count":2}`).problem(409, "PORT_TAKEN")
		}
		// The others come as ever.
		equal(t, "any", a.offer("django", "web-02").Port, 5000)
		equal(t, "claimed", a.claim("django", `{"name":"web-03","port":5009}`).Port, 5009)
	})
}

func TestPrefer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5002")
		equal(t, "free", a.claim("django", `{"name":"web-01","prefer":5001}`).Port, 5001)
		o := read[offer](a.post("/v1/services/django/offers", `{"name":"web-02","prefer":5001}`).want(201))
		equal(t, "taken", o.Port, 5000)
		for _, route := range routesOfRequests {
			for _, outside := range []int{4999, 5003} {
				a.post(route, fmt.Sprintf(`{"name":"web-03","prefer":%d}`, outside)).invalid("prefer")
			}
		}
		a.delete("/v1/services/django/ports/5001").want(204)
		equal(t, "free again", a.claim("django", `{"name":"web-01","prefer":5001}`).Port, 5001)
		a.offer("django", "web-03")
		a.post("/v1/services/django/ports", `{"name":"web-04","prefer":5001}`).problem(409, "EXHAUSTED")
	})
}

// A block is one offer, and one allocation, of consecutive ports.
func TestBlock(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.offer("django", "web-00")
		o := read[offer](a.post("/v1/services/django/offers", `{"name":"web-01","count":4}`).want(201))
		equal(t, "the first", o.Port, 5001)
		equal(t, "count", o.Count, 4)
		equal(t, "read", read[offer](a.get(o.path())), o)
		equal(t, "listed", read[[]offer](a.get("/v1/services/django/offers"))[1].Count, 4)
		equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 5, Offered: 5})

		held := a.accept(o)
		equal(t, "count", held.Count, 4)
		equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 5, Offered: 1, Allocated: 4})
		equal(t, "allocations", len(read[[]allocation](a.get("/v1/services/django/ports"))), 1)
		for _, way := range []string{"5001", "5002", "5004", "web-01"} {
			equal(t, "by "+way, read[allocation](a.get("/v1/services/django/ports/"+way).want(200)), held)
		}
		a.get("/v1/services/django/ports/5005").problem(404, "PORT_NOT_FOUND")
		for _, route := range routesOfRequests {
			a.post(route, `{"name":"web-02","port":5003}`).problem(409, "PORT_TAKEN")
			a.post(route, `{"name":"web-02","count":6}`).problem(409, "EXHAUSTED")
		}
		contains(t, a.put("/v1/services/django", `{"start":5000,"end":5003}`).problem(409, "RANGE_IN_USE").Detail, "5004")

		// Any of its ports stands for all.
		r := a.post("/v1/services/django/ports/5003/renew", `{"secret":"`+o.Secret+`","lease":60}`).want(200)
		equal(t, "renewed", read[allocation](r).Port, 5001)
		a.delete("/v1/services/django/ports/5004", "Portmaster-Secret", o.Secret).want(204)
		a.delete("/v1/services/django/ports/5002", "Portmaster-Secret", o.Secret).want(204) // repeated
		equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 9, Offered: 1})
		equal(t, "gathered again", a.claim("django", `{"name":"web-01","count":9}`).Port, 5001)
	})
}

// A count of 1 is what is offered without it, and is not told.
func TestCountOfOne(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	for i, body := range []string{`{"name":"web-01","count":1}`, `{"name":"web-02","prefer":5001,"count":1}`, `{"name":"web-03","port":5002,"count":1}`} {
		r := a.post("/v1/services/django/ports", body).want(201)
		equal(t, "port", read[allocation](r).Port, 5000+i)
		if strings.Contains(r.body, "count") {
			t.Error(r.body)
		}
	}
}

// What is wrong with a want, whichever route it comes to.
func TestRequestInvalid(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	const secret = `"5d0e2c8b-2f4a-4c39-9b1e-0c6f3a7d8e91"`
	for _, route := range routesOfRequests {
		for _, test := range []struct{ want, fields string }{
			{`"lease":0`, "lease"},
			{`"lease":0.0`, "lease"},
			{`"lease":-0`, "lease"},
			{`"lease":"0"`, "lease"},
			{`"lease":"0s"`, "lease"},
			{`"lease":0.999`, "lease"},
			{`"lease":-1`, "lease"},
			{`"lease":"-1h"`, "lease"},
			{`"lease":1.0001`, "lease"},
			{`"lease":1.0000000001`, "lease"},
			{`"lease":"1.5ms"`, "lease"},
			{`"lease":"1001001us"`, "lease"},
			{`"lease":2592000.001`, "lease"},
			{`"lease":"721h"`, "lease"},
			{`"lease":1e3`, "lease"},
			{`"lease":99999999999999999999`, "lease"},
			{`"lease":1e999`, "lease"},
			{`"lease":"99999999999h"`, "lease"},
			{`"lease":"NaN"`, "lease"},
			{`"lease":"90"`, "lease"},
			{`"lease":"soon"`, "lease"},
			{`"lease":""`, "lease"},
			{`"lease":"1D"`, "lease"},
			{`"lease":"30.00000001d"`, "lease"},
			{`"lease":"31d"`, "lease"},
			{`"lease":"+90s"`, "lease"},
			{`"secret":""`, "secret"},
			{`"lease":null`, "lease"},
			{`"lease":true`, "lease"},
			{`"lease":{"seconds":1}`, "lease"},
			{`"lease":[90]`, "lease"},
			{`"port":0`, "port"},
			{`"port":-1`, "port"},
			{`"port":65536`, "port"},
			{`"port":"5000"`, "port"},
			{`"port":5000.5`, "port"},
			{`"port":null`, "port"},
			{`"port":99999999999999999999`, "port"},
			{`"prefer":0`, "prefer"},
			{`"prefer":65536`, "prefer"},
			{`"prefer":"5000"`, "prefer"},
			{`"prefer":null`, "prefer"},
			{`"count":0`, "count"},
			{`"count":-1`, "count"},
			{`"count":101`, "count"},
			{`"count":"2"`, "count"},
			{`"count":2.5`, "count"},
			{`"count":null`, "count"},
			{`"port":5000,"prefer":5001`, "prefer"},
			{`"prefer":5000,"count":2`, "prefer"},
			{`"lease":0,"port":0,"prefer":0,"count":0`, "lease port prefer count prefer"},
			{`"lease":1,"lease":2`, "lease"},
			{`"ttl":90`, "ttl"},
			{`"wait":90`, "wait"},
		} {
			a.post(route, `{"name":"web-01",`+test.want+`}`).invalid(strings.Fields(test.fields)...)
			var fields []string
			for _, field := range strings.Fields(test.fields) {
				fields = append(fields, "[1]."+field)
			}
			a.post(route, `[{"name":"web-01"},{"name":"web-02",`+test.want+`}]`).invalid(fields...)
		}
		for _, test := range []struct{ list, fields string }{
			{`[]`, "body"},
			{"\n [ ] ", "body"},
			{`[` + strings.Repeat(`{"name":"a"},`, 100) + `{"name":"a"}]`, "body"},
			{`[{"name":"a"},{"name":"a"},{"name":"b"},{"name":"a"}]`, "[1].name [3].name"},
			{`[{"name":"a","secret":` + secret + `},{"name":"b","secret":` + secret + `}]`, "[1].secret"},
			{`[{"name":"a","port":5000},{"name":"b","port":5000}]`, "[1].port"},
			{`[{"name":"a","port":5004},{"name":"b","port":5001,"count":4}]`, "[1].port"},
			{`[{"name":"a","port":5001,"count":4},{"name":"b"},{"name":"c","port":5002}]`, "[2].port"},
			{`[{},{"name":"-5000"},{"name":"a","secret":"guess"}]`, "[0].name [1].name [2].secret"},
			{`[null]`, "[0]"},
			{`[{"name":"a"},5]`, "[1]"},
			{`[{"name":"a"},[]]`, "[1]"},
			{`[{"name":"a"},{"":1}]`, "[1]"},
			{`[{"name":"a"},{"name":null}]`, "[1].name"},
			{`[{"name":"a"},{"name":"b","name":"c"}]`, "[1].name"},
			{`[{"name":"a"},{"name":{"0":{"x":1}}}]`, "[1].name"},
			{`[{"name":"a"},{"0":1}]`, "[1].0"},
			{`[{"name":"a"}] []`, "body"},
			{`{"0":{"name":"a"}}`, "0"},
		} {
			a.post(route, test.list).invalid(strings.Fields(test.fields)...)
		}
		for _, unfinished := range []string{`[`, `[{"name":"a"}`, `[{"name":"a"},]`} {
			a.post(route, unfinished).problem(400, "INVALID")
		}
	}
	equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 10})
}

// The ways to write a lease, and how answers write it.
func TestDurations(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5099")
	for i, test := range []struct{ given, shown string }{
		{`1`, "1"},
		{`90`, "90"},
		{`1.5`, "1.5"},
		{`1.50`, "1.5"},
		{`1.000000000000`, "1"},
		{`1.001`, "1.001"},
		{`2591999.999`, "2591999.999"},
		{`2592000`, "2592000"},
		{`"90s"`, "90"},
		{`"1h30m"`, "5400"},
		{`"1001ms"`, "1.001"},
		{`"720h"`, "2592000"},
		{`"30d"`, "2592000"},
		{`"1d12h"`, "129600"},
		{`".5d"`, "43200"},
		{`"1m0.25s"`, "60.25"},
		{`"2000000us"`, "2"},
	} {
		r := a.post("/v1/services/django/offers", fmt.Sprintf(`{"name":"web-%d","lease":%s}`, i, test.given)).want(201)
		contains(t, r.body, `,"lease":`+test.shown+`}`)
		held := a.accept(read[offer](r))
		seconds, _ := time.ParseDuration(test.shown + "s")
		equal(t, test.given, held.Expires.Sub(held.Created), seconds)
	}
}

// What the range can never meet is refused at once, whether the call would wait or not.
func TestImpossibleRequests(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.claim("django", `{"name":"holder"}`)
		for body, field := range map[string]string{
			`{"name":"big","count":11}`:                       "count",
			`[{"name":"a"},{"name":"big","count":11}]`:        "[1].count",
			`[{"name":"a","count":6},{"name":"b","count":5}]`: "body",
		} {
			for _, route := range routesOfRequests {
				for _, query := range []string{"", "?wait=60s"} {
					p := a.post(route+query, body).problem(400, "INVALID")
					equal(t, body+query, p.Errors[0].Field, field)
				}
			}
		}
		equal(t, "nobody waits", a.service("django").Waiting, 0)
	})
}

// A secret stands for what it was used for: another port or count than that is an error, and no answer.
func TestSecretOfSomethingElse(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		offered, claimed := uuid.NewString(), uuid.NewString()
		a.post("/v1/services/django/offers", `{"name":"o","count":2,"secret":"`+offered+`"}`).want(201)
		a.post("/v1/services/django/ports", `{"name":"c","port":5005,"secret":"`+claimed+`"}`).want(201)
		for _, test := range []struct{ route, body, field string }{
			{"offers", `{"name":"o","count":3,"secret":"` + offered + `"}`, "count"},
			{"offers", `{"name":"o","port":5001,"secret":"` + offered + `"}`, "port"},
			{"ports", `{"name":"o","count":1,"secret":"` + offered + `"}`, "count"},
			{"ports", `{"name":"o","port":5002,"secret":"` + offered + `"}`, "port"},
			{"ports", `{"name":"c","port":5006,"secret":"` + claimed + `"}`, "port"},
			{"ports", `{"name":"c","count":2,"secret":"` + claimed + `"}`, "count"},
		} {
			p := a.post("/v1/services/django/"+test.route, test.body).problem(400, "INVALID")
			equal(t, test.body, p.Errors[0].Field, test.field)
		}
		a.post("/v1/services/django/offers", `{"name":"o","count":2,"port":5000,"secret":"`+offered+`"}`).want(200)
		a.post("/v1/services/django/ports", `{"name":"o","secret":"`+offered+`"}`).want(201)
		a.post("/v1/services/django/ports", `{"name":"c","port":5005,"count":1,"secret":"`+claimed+`"}`).want(200)
	})
}
