package handlers

import (
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// A map as it is answered, with a port in each state, and in pages.
func TestMap(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.put("/v1/services/django", `{"start":5000,"end":5019,"cooldown":60}`).want(201)
	a.claim("django", `{"name":"web-01","port":5000}`)
	a.claim("django", `{"name":"farm","port":5002,"count":3,"lease":90}`)
	a.post("/v1/services/django/offers", `{"name":"web-02","port":5005,"count":2}`).want(201)
	a.claim("django", `{"name":"gone","port":5008,"count":2}`)
	a.delete("/v1/services/django/ports/gone").want(204)
	busy := read[offer](a.post("/v1/services/django/offers", `{"name":"web-03","port":5010}`).want(201))
	a.post(busy.path()+"/reject", `{"reason":"in_use"}`).want(204)

	const head = `{"service":"django","time":"2026-11-02T12:00:00.000Z","start":5000,"end":5019,"ports":[`
	const first = `{"start":5000,"end":5000,"state":"allocated","name":"web-01","created":"2026-11-02T12:00:00.000Z"},` +
		`{"start":5001,"end":5001,"state":"free"},` +
		`{"start":5002,"end":5004,"state":"allocated","name":"farm","created":"2026-11-02T12:00:00.000Z","until":"2026-11-02T12:01:30.000Z"}`
	const second = `{"start":5005,"end":5006,"state":"offered","name":"web-02","created":"2026-11-02T12:00:00.000Z","until":"2026-11-02T12:30:00.000Z"},` +
		`{"start":5007,"end":5007,"state":"free"},` +
		`{"start":5008,"end":5008,"state":"cooling","until":"2026-11-02T12:01:00.000Z"},` +
		`{"start":5009,"end":5009,"state":"cooling","until":"2026-11-02T12:01:00.000Z"},` +
		`{"start":5010,"end":5010,"state":"quarantined","until":"2026-11-02T12:05:00.000Z"},` +
		`{"start":5011,"end":5019,"state":"free"}`
	r := a.get("/v1/services/django/map").want(200)
	equal(t, "map", r.body, head+first+","+second+"]}")
	equal(t, "Link", r.header.Get("Link"), "")
	equal(t, "as a pool", a.get("/v1/pools/default/services/django/map?limit=4096").want(200).body, r.body)

	r = a.get("/v1/services/django/map?limit=4").want(200) // of the block one port more
	equal(t, "first page", r.body, head+first+"]}")
	equal(t, "Link", r.header.Get("Link"), `</v1/services/django/map?limit=4&cursor=5005>; rel="next"`)
	r = a.get("/v1/services/django/map?limit=15&cursor=5005").want(200)
	equal(t, "second page", r.body, head+second+"]}")
	equal(t, "Link", r.header.Get("Link"), "")

	store.Mini.SetTime(noon.Add(90 * time.Second)) // the lease ended just now, and the cooldown before
	contains(t, a.get("/v1/services/django/map").want(200).body, `{"start":5001,"end":5001,"state":"free"},`+
		`{"start":5002,"end":5002,"state":"cooling","until":"2026-11-02T12:02:30.000Z"}`, `{"start":5007,"end":5009,"state":"free"}`)

	for _, limit := range []string{"", "0", "4097", "-1", "05", "1.5"} {
		a.get("/v1/services/django/map?limit=" + limit).invalid("limit")
	}
	a.get("/v1/services/django/map?cursor=x").invalid("cursor")
	a.get("/v1/services/flask/map").problem(404, "SERVICE_NOT_FOUND")
}
