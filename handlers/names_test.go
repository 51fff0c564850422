package handlers

import (
	"testing"

	"portmaster/allocator/storetest"
)

// A name of digits is a name, and digits in a path are a port.
func TestNamesOfDigits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		const path = "/v1/services/django/ports"
		a.define("django", "5000-5009")
		digits, other := a.claim("django", `{"name":"5001"}`), a.claim("django", `{"name":"web-01"}`)
		equal(t, "ports", [2]int{digits.Port, other.Port}, [2]int{5000, 5001})
		equal(t, "at 5001", read[allocation](a.get(path+"/5001")).Name, "web-01")
		equal(t, "at 5000", read[allocation](a.get(path+"/5000")).Name, "5001")
		found := read[[]allocation](a.get(path + "?name=5001"))
		if len(found) != 1 || found[0].Port != 5000 {
			t.Errorf("by name: %+v", found)
		}
		a.post(path, `{"name":"5001"}`).problem(409, "NAME_TAKEN")
		a.post("/v1/services/django/offers", `{"name":"0"}`).want(201)
		equal(t, "offers", len(read[[]offer](a.get("/v1/services/django/offers?name=0"))), 1)

		// By its name in a path, with its own secret, nothing of another holder is done.
		a.delete(path+"/5001", headerSecret, digits.Secret).problem(403, "SECRET_MISMATCH")
		a.post(path+"/5001/renew", `{"secret":"`+digits.Secret+`","lease":60}`).problem(403, "SECRET_MISMATCH")
		equal(t, "released by name", a.delete(path+"?name=5001").want(200).body, `{"released":1}`)
		equal(t, "at 5001", read[allocation](a.get(path+"/5001").want(200)).Name, "web-01")

		// The same for a release that is repeated.
		last := a.claim("django", `{"name":"5009","port":5003}`)
		a.delete(path+"/5003", headerSecret, last.Secret).want(204)
		a.delete(path+"/5003", headerSecret, last.Secret).want(204)
		a.delete(path+"/5009", headerSecret, last.Secret).problem(404, "PORT_NOT_FOUND")
	})
}
