package handlers

import (
	"fmt"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// What is free is listed in the order in which it goes out: what was given back, also after a rest, and then fresh ports, of all
// ranges. Nothing is held by it.
func TestFreePorts(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store, func(s *settings) { s.allocator.Quarantine = time.Second })
		a.post("/v1/services", `{"name":"django","ranges":[{"start":9998,"end":10001},{"start":5000,"end":5003}]}`).want(201)
		free := func(query string) string {
			return fmt.Sprint(read[struct{ Ports []int }](a.get("/v1/services/django/free" + query)).Ports)
		}
		equal(t, "fresh ports", free(""), "[5000 5001 5002 5003 9998 9999 10000 10001]")
		first := a.claim("django", `{"name":"a","port":5002}`)
		a.claim("django", `{"name":"b","port":5000,"lease":3600}`)
		a.offer("django", "c") // gets 5001
		a.delete(first.path()).want(204)
		equal(t, "the first", free("?limit=3"), "[5002 5003 9998]")

		// 9999 is found in use, and rests while 10001 is given back.
		inUse, back := a.claim("django", `{"name":"d","port":9999}`), a.claim("django", `{"name":"e","port":10001}`)
		a.delete(inUse.path() + "?reason=in_use").want(204)
		a.delete(back.path()).want(204)
		equal(t, "while one rests", free(""), "[5002 10001 5003 9998 10000]")
		soon(t, "its rest is over", func() bool { return a.service("django").Ports.Cooling == 0 })
		want := []int{5002, 10001, 9999, 5003, 9998, 10000}
		equal(t, "after its rest", free(""), fmt.Sprint(want))
		equal(t, "what is free", a.service("django").Ports.Free, len(want))
		for i, port := range want {
			equal(t, "what goes out", a.claim("django", fmt.Sprintf(`{"name":"n%d"}`, i)).Port, port)
		}
		equal(t, "nothing", a.get("/v1/services/django/free").body[:37], `{"pool":"default","service":"django",`)
		equal(t, "none", free(""), "[]")

		for _, limit := range []string{"0", "1001", "-1", "x", "01"} {
			a.get("/v1/services/django/free?limit=" + limit).invalid("limit")
		}
		a.get("/v1/services/django/free?cursor=5").invalid("cursor")
		a.get("/v1/services/none/free").problem(404, "SERVICE_NOT_FOUND")
	})
}

// What a cut leaves out is not listed, and a cool-down is.
func TestFreePortsWithinTheRange(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.put("/v1/services/django", `{"start":5000,"end":5005,"cooldown":60}`).want(201)
	for _, port := range []string{"5001", "5004"} {
		a.delete(a.claim("django", `{"name":"a","port":`+port+`}`).path()).want(204)
	}
	free := func() string { return fmt.Sprint(read[struct{ Ports []int }](a.get("/v1/services/django/free")).Ports) }
	equal(t, "while two cool", free(), "[5000 5002 5003 5005]")
	a.put("/v1/services/django", `{"start":5000,"end":5002,"cooldown":60}`).want(200)
	equal(t, "while one cools", free(), "[5000 5002]")
	store.Mini.SetTime(noon.Add(time.Minute))
	equal(t, "after it cooled", free(), "[5001 5000 5002]")
}
