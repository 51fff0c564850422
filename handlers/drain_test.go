package handlers

import (
	"testing"

	"portmaster/allocator/storetest"
)

// What leaves the ranges drains if a PUT or PATCH says so; the answers count it, the lists have it, and the map marks it, in pages, too.
func TestDrainOfAService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		const path = "/v1/services/web"
		a := newAPI(t, store)
		a.post("/v1/services", `{"name":"web","start":5000,"end":5009,"drain":true}`).invalid("drain")
		a.put(path, `{"start":5000,"end":5009,"drain":true}`).want(201)
		a.claim("web", `{"name":"block","port":5004,"count":3}`)
		a.claim("web", `{"name":"last","port":5009}`)
		a.put(path, `{"start":5000,"end":5005,"drain":false}`).problem(409, "RANGE_IN_USE")
		a.put(path, `{"start":5000,"end":5005,"drain":"yes"}`).invalid("drain")
		a.do("PATCH", path, `{"end":5005,"drain":null}`).invalid("drain")
		r := a.do("PATCH", path, `{"end":5005,"drain":true}`).want(200)
		contains(t, r.body, `"start":5000,"end":5005,"cooldown":0`)
		contains(t, r.body, `"ports":{"total":8,"free":4,"offered":0,"allocated":4,"cooling":0,"draining":2}`)
		contains(t, a.get("/v1/services").want(200).body, `"draining":2`)
		contains(t, a.get(path+"/ports").want(200).body, `"port":5009`)
		contains(t, a.put("/v1/services/other", `{"start":5007,"end":5008}`).want(409).body, "drains in web")
		a.post(path+"/ports", `{"name":"a","port":5008}`).invalid("port")

		m := a.get(path + "/map").want(200).body
		contains(t, m, `"start":5000,"end":5005,"ports":[{"start":5000,"end":5003,"state":"free"},{"start":5004,"end":5006,"state":"allocated","name":"block"`)
		contains(t, m, `,"draining":true},{"start":5009,"end":5009,"state":"allocated","name":"last"`)
		page := a.get(path + "/map?limit=2&cursor=5007").want(200)
		contains(t, page.body, `"ports":[]`)
		contains(t, page.header.Get("Link"), "cursor=5009")

		a.delete(path + "/ports/last").want(204)
		a.put(path, `{"start":5000,"end":5009}`).want(200)
		contains(t, a.get(path).want(200).body, `"ports":{"total":10,"free":7,"offered":0,"allocated":3,"cooling":0}`)
	})
}
