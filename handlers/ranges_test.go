package handlers

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"portmaster/allocator/storetest"
)

func TestRanges(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store, func(s *settings) { s.allocator.History = 100 })
		r := a.put("/v1/services/web", `{"ranges":[{"start":7000,"end":7001},{"start":5000,"end":5003}],"exclude":[5002,{"start":9000,"end":9001}]}`).want(201)
		ranges := `"start":5000,"end":7001,"ranges":[{"start":5000,"end":5001},{"start":5003,"end":5003},{"start":7000,"end":7001}]`
		contains(t, r.body, ranges)
		contains(t, r.body, `"total":5,"free":5`)
		contains(t, a.get("/v1/services/web/map").want(200).body, ranges)
		contains(t, a.get("/v1/services/web/map").body, `{"start":5000,"end":5001,"state":"free"},{"start":5003,"end":5003,"state":"free"},{"start":7000,`)
		contains(t, a.get("/v1/services/web/history").want(200).body, ranges)

		// Other services may lie between, and none may overlap.
		a.put("/v1/services/hole", `{"start":5002,"end":5002}`).want(201)
		a.put("/v1/services/between", `{"ranges":[{"start":5004,"end":6999},{"start":7002,"end":7003}]}`).want(201)
		for _, overlap := range []string{`{"start":5003,"end":5003}`, `{"start":4000,"end":5000}`, `{"start":7001,"end":7001}`, `{"start":5002,"end":5002}`,
			`{"start":6000,"end":6000}`, `{"ranges":[{"start":4000,"end":4001},{"start":7003,"end":7010}]}`} {
			a.put("/v1/services/other", overlap).problem(409, "RANGE_OVERLAP")
		}
		contains(t, a.get("/v1/services?limit=2").want(200).body, `"name":"hole"`)

		// No port is outside of a range, and no block.
		for _, wrong := range []string{`{"name":"a","port":5002}`, `{"name":"a","port":6000}`, `{"name":"a","port":5001,"count":2}`} {
			a.post("/v1/services/web/ports", wrong).invalid("port")
		}
		a.post("/v1/services/web/ports", `{"name":"a","prefer":5002}`).invalid("prefer")
		a.post("/v1/services/web/ports", `{"name":"a","count":3}`).invalid("count")
		a.claim("web", `{"name":"a","port":5003}`)
		a.claim("web", `{"name":"b","count":2}`)
		a.claim("web", `{"name":"c","count":2}`)
		a.post("/v1/services/web/ports", `{"name":"d"}`).problem(409, "EXHAUSTED")

		a.put("/v1/services/web", `{"ranges":[{"start":5000,"end":5001},{"start":7000,"end":7001}]}`).problem(409, "RANGE_IN_USE")
		a.delete("/v1/services/web/ports/a").want(204)
		r = a.put("/v1/services/web", `{"ranges":[{"start":5000,"end":5001},{"start":7000,"end":7001}]}`).want(200)
		contains(t, r.body, `"total":4,"free":0`)
		a.put("/v1/services/other", `{"start":5003,"end":5003}`).want(201)
		a.delete("/v1/services/web/ports?owner=nobody").want(200)
	})
}

func TestWrongRanges(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		many := func(n int) string {
			var all []string
			for i := range n {
				all = append(all, fmt.Sprintf(`{"start":%d,"end":%d}`, 5000+2*i, 5000+2*i))
			}
			return strings.Join(all, ",")
		}
		for body, field := range map[string]string{
			`{"ranges":[]}`:                                "ranges",
			`{"ranges":null}`:                              "ranges",
			`{"ranges":[{"start":5000}]}`:                  "ranges",
			`{"ranges":[{"start":5000,"end":5001,"x":1}]}`: "ranges",
			`{"ranges":[5000]}`:                            "ranges",
			`{"ranges":[{"start":5000,"end":5001},{"start":5001,"end":5002}]}`:          "ranges",
			`{"start":5000,"end":5001,"ranges":[{"start":5000,"end":5001}]}`:            "ranges",
			`{"ranges":[` + many(33) + `]}`:                                             "ranges",
			`{"start":5000,"end":5009,"exclude":[0]}`:                                   "exclude",
			`{"start":5000,"end":5009,"exclude":["5001"]}`:                              "exclude",
			`{"start":5000,"end":5009,"exclude":[{"start":5002,"end":5001}]}`:           "exclude",
			`{"start":5000,"end":5009,"exclude":[{"start":4000,"end":6000}]}`:           "exclude",
			`{"start":5000,"end":5009,"exclude":[5001.5]}`:                              "exclude",
			`{"start":4999,"end":5070,"exclude":[` + many(33) + `]}`:                    "exclude",
			`{"start":5000,"end":5009,"exclude":[` + strings.Repeat("1,", 1000) + `1]}`: "exclude",
		} {
			a.put("/v1/services/web", body).invalid(field)
		}
		a.put("/v1/services/web", `{"ranges":[`+many(32)+`]}`).want(201)
	})
}

// A PATCH changes what it has, and nothing else.
func TestPatchService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		patch := func(body string, headers ...string) answer {
			return a.do("PATCH", "/v1/services/web", body, headers...)
		}
		patch(`{"cooldown":1}`).problem(404, "SERVICE_NOT_FOUND")
		for body, field := range map[string]string{ // wrong, whatever the service is
			`{"cooldown":2592000.001}`:                           "cooldown",
			`{"start":1023}`:                                     "start",
			`{"end":65536}`:                                      "end",
			`{"start":5001,"end":5000}`:                          "end",
			`{"ranges":[]}`:                                      "ranges",
			`{"ranges":[{"start":5001,"end":5000}]}`:             "ranges",
			`{"end":6000,"ranges":[{"start":5000,"end":5001}]}`:  "ranges",
			`{"exclude":[0]}`:                                    "exclude",
			`{"description":"` + strings.Repeat("d", 257) + `"}`: "description",
		} {
			patch(body).invalid(field)
		}
		// What these leave depends on the service.
		patch(`{"exclude":[{"start":1024,"end":65535}]}`).problem(404, "SERVICE_NOT_FOUND")
		a.put("/v1/services/web", `{"description":"d","start":5000,"end":5009,"cooldown":60}`).want(201)
		for _, step := range []struct{ body, ranges, rest string }{
			{`{}`, `"start":5000,"end":5009`, `"description":"d","cooldown":60`},
			{`{"end":5019}`, `"start":5000,"end":5019`, `"description":"d","cooldown":60`},
			{`{"cooldown":"1s","description":""}`, `"start":5000,"end":5019`, `"description":"","cooldown":1`},
			{`{"exclude":[5005]}`, `"start":5000,"end":5019,"ranges":[{"start":5000,"end":5004},{"start":5006,"end":5019}]`, `"description":"","cooldown":1`},
			{`{"exclude":[5005],"description":"x"}`, `"start":5000,"end":5019,"ranges":[{"start":5000,"end":5004},{"start":5006,"end":5019}]`, `"description":"x","cooldown":1`},
			{`{"start":5000,"end":5004}`, `"start":5000,"end":5004`, `"description":"x","cooldown":1`},
			{`{"ranges":[{"start":5000,"end":5001},{"start":6000,"end":6001}]}`, `"start":5000,"end":6001,"ranges":[{"start":5000,"end":5001},{"start":6000,"end":6001}]`, `"description":"x","cooldown":1`},
		} {
			r := patch(step.body).want(200)
			contains(t, r.body, step.ranges+`,"cooldown"`)
			for _, field := range strings.Split(step.rest, ",") {
				contains(t, r.body, field+",")
			}
			equal(t, "read again", a.get("/v1/services/web").want(200).body, r.body)
		}
		patch(`{"cooldown":2}`, "Content-Type", "application/merge-patch+json").want(200)
		patch(`{"cooldown":2}`, "Content-Type", "application/merge-patch+json; charset=utf-8").want(200)
		patch(`{"cooldown":2}`, "Content-Type", "application/merge-patch+json; charset=latin1").want(415)
		a.put("/v1/services/web", `{"start":5000,"end":5001}`, "Content-Type", "application/merge-patch+json").want(415)
		patch(`{"end":6000}`).invalid("start")
		patch(`{"start":6000}`).invalid("end")
		patch(`{"start":5000,"ranges":[{"start":5000,"end":5001}]}`).invalid("ranges")
		patch(`{"name":"web"}`).invalid("name")
		patch(`{"cooldown":null}`).invalid("cooldown")
		patch(`{"description":null}`).invalid("description")
		a.claim("web", `{"name":"a","port":6000}`)
		patch(`{"exclude":[6000]}`).problem(409, "RANGE_IN_USE")
	})
}

// Of changes at the same time, none is undone by another.
func TestPatchesAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.put("/v1/services/web", `{"start":5000,"end":5039}`).want(201)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if got := a.do("PATCH", "/v1/services/web", fmt.Sprintf(`{"exclude":[%d]}`, 5001+2*i)); got.status != 200 {
					t.Errorf("%s", got)
				}
			})
		}
		all.Wait()
		contains(t, a.get("/v1/services/web").want(200).body, `"total":20`)
	})
}
