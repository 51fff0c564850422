package handlers

import (
	"testing"

	"portmaster/allocator/storetest"
)

func TestAlign(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.post("/v1/services", `{"name":"rtp","start":5001,"end":5009}`).want(201)
		wants := func(body string, port int) {
			t.Helper()
			equal(t, body, a.claim("rtp", body).Port, port)
		}
		wants(`{"name":"a","align":2,"count":2}`, 5002)
		wants(`{"name":"b","align":2,"prefer":5002}`, 5004)
		wants(`{"name":"c","align":4}`, 5008)
		wants(`{"name":"d","align":2}`, 5006)
		a.post("/v1/services/rtp/ports", `{"name":"e","align":2}`).problem(409, "EXHAUSTED")
		a.delete("/v1/services/rtp/ports/c").want(204)
		a.post("/v1/services/rtp/ports", `[{"name":"e","align":2},{"name":"f","align":2}]`).problem(409, "EXHAUSTED")
		a.post("/v1/services/rtp/offers", `[{"name":"e","align":2},{"name":"f"}]`).want(201)

		for body, field := range map[string]string{
			`{"name":"x","align":1}`:               "align",
			`{"name":"x","align":65}`:              "align",
			`{"name":"x","align":0}`:               "align",
			`{"name":"x","align":-2}`:              "align",
			`{"name":"x","align":"2"}`:             "align",
			`{"name":"x","align":2.0}`:             "align",
			`{"name":"x","align":null}`:            "align",
			`{"name":"x","align":64}`:              "align",
			`{"name":"x","align":8,"count":3}`:     "align",
			`{"name":"x","align":2,"port":5001}`:   "port",
			`{"name":"x","align":3,"prefer":5008}`: "prefer",
		} {
			a.post("/v1/services/rtp/ports", body).invalid(field)
		}
		a.post("/v1/services/rtp/ports", `[{"name":"x"},{"name":"y","align":64}]`).invalid("[1].align")
		secret := `"secret":"2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f0"`
		a.delete("/v1/services/rtp/ports/d").want(204)
		wants(`{"name":"x","align":2,`+secret+`}`, 5006)
		a.post("/v1/services/rtp/ports", `{"name":"x","align":3,`+secret+`}`).invalid("align")
	})
}
