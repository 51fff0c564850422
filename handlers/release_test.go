package handlers

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

// The secret of an allocation keeps a late holder from releasing the next one's port, and the call may be repeated.
func TestReleaseBySecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		const port = "/v1/services/django/ports/5000"
		first := a.claim("django", `{"name":"web-01"}`)
		a.delete(port, "Portmaster-Secret", uuid.NewString()).problem(403, "SECRET_MISMATCH")
		equal(t, "all as before", read[allocation](a.get(port)), hidden(first))
		a.delete(port, "Portmaster-Secret", first.Secret).want(204)
		a.delete(port, "Portmaster-Secret", first.Secret).want(204)
		a.delete("/v1/services/django/ports/web-01", "Portmaster-Secret", first.Secret).want(204)
		a.delete(port, "Portmaster-Secret", uuid.NewString()).problem(404, "PORT_NOT_FOUND")

		// Whoever has the port now keeps it. The secret of an offer is the allocation's, too.
		o := a.offer("django", "web-02")
		held := a.accept(o)
		a.delete(port, "Portmaster-Secret", first.Secret).want(204)
		equal(t, "the next holder", read[allocation](a.get(port)), held)
		a.delete("/v1/services/django/ports/web-02", "Portmaster-Secret", first.Secret).problem(403, "SECRET_MISMATCH")
		a.delete("/v1/services/django/ports/web-02", "Portmaster-Secret", o.Secret).want(204)
		a.put(o.path(), "").problem(404, "OFFER_NOT_FOUND")
		a.get(o.path()).problem(404, "OFFER_NOT_FOUND")
		a.delete(o.path()).problem(404, "OFFER_NOT_FOUND")
	})
}

// What was released is remembered for a minute.
func TestReleaseIsForgotten(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	store.Mini.SetTime(noon)
	a.define("django", "5000-5000")
	first := a.claim("django", `{"name":"web-01"}`)
	a.delete(first.path(), "Portmaster-Secret", first.Secret).want(204)
	store.Mini.SetTime(noon.Add(time.Minute - time.Millisecond))
	a.delete(first.path(), "Portmaster-Secret", first.Secret).want(204)
	store.Mini.SetTime(noon.Add(time.Minute))
	a.delete(first.path(), "Portmaster-Secret", first.Secret).problem(404, "PORT_NOT_FOUND")
	a.claim("django", `{"name":"web-02"}`)
	a.delete(first.path(), "Portmaster-Secret", first.Secret).problem(403, "SECRET_MISMATCH")
	// Its secret may be used for something new.
	a.delete("/v1/services/django/ports/web-02").want(204)
	a.claim("django", `{"name":"web-01","secret":"`+first.Secret+`"}`)
}

// Where both are given, both must hold.
func TestReleaseBySecretAndFence(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		held := a.claim("django", `{"name":"web-01"}`)
		tag := a.get(held.path()).header.Get("ETag")
		stranger := uuid.NewString()
		a.delete(held.path(), "Portmaster-Secret", held.Secret, "If-Match", `"99"`).problem(412, "PRECONDITION_FAILED")
		a.delete(held.path(), "Portmaster-Secret", stranger, "If-Match", tag).problem(403, "SECRET_MISMATCH")
		a.delete(held.path(), "Portmaster-Secret", held.Secret, "If-Match", `99`).invalid("If-Match")
		a.delete(held.path(), "Portmaster-Secret", held.Secret, "If-Match", tag+`, "99"`).want(204)

		held = a.claim("django", `{"name":"web-01"}`)
		a.delete(held.path(), "Portmaster-Secret", held.Secret, "If-Match", `*`).want(204)
	})
}

// A secret that proves nothing is no reason to release: not even an empty one.
func TestReleaseSecretInvalid(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	held := a.claim("django", `{"name":"web-01","secret":"6f8ffc86-d98a-49ba-848a-a7cbaaea9361"}`)
	for _, bad := range []string{"guess", "6F8FFC86-D98A-49BA-848A-A7CBAAEA9361", "{6f8ffc86-d98a-49ba-848a-a7cbaaea9361}", "*", `"1"`} {
		a.delete(held.path(), "Portmaster-Secret", bad).invalid("Portmaster-Secret")
	}
	const head = "DELETE /v1/services/django/ports/5000 HTTP/1.1\r\nHost: a\r\n"
	a.raw(head + "Portmaster-Secret:\r\n\r\n").invalid("Portmaster-Secret")
	a.raw(head + "Portmaster-Secret: \r\n\r\n").invalid("Portmaster-Secret")
	a.raw(head + "Portmaster-Secret: " + held.Secret + "\r\nPortmaster-Secret: " + held.Secret + "\r\n\r\n").invalid("Portmaster-Secret")
	a.raw(head + "portmaster-secret: guess\r\n\r\n").invalid("Portmaster-Secret")
	a.delete("/v1/services/-/ports/-", "Portmaster-Secret", "guess").invalid("service", "port", "Portmaster-Secret")
	equal(t, "all as before", read[allocation](a.get(held.path())), hidden(held))
}

// A server may want to be told which allocation is meant.
func TestReleaseNeedsSecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store, func(s *settings) { s.allocator.ReleaseNeedsSecret = true })
		a.define("django", "5000-5009")
		held := a.claim("django", `{"name":"web-01"}`)
		contains(t, a.delete(held.path()).problem(428, "PRECONDITION_REQUIRED").Detail, "Portmaster-Secret", "If-Match")
		a.delete(held.path(), "If-Match", "*").problem(428, "PRECONDITION_REQUIRED")
		equal(t, "all as before", read[allocation](a.get(held.path())), hidden(held))
		a.delete(held.path(), "Portmaster-Secret", held.Secret).want(204)
		held = a.claim("django", `{"name":"web-01"}`)
		a.delete(held.path(), "If-Match", a.get(held.path()).header.Get("ETag")).want(204)
	})
}

// A port is written in digits, and in no other way that a computer may read as a number.
func TestReleaseByOtherSpellingsOfAPort(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		first := a.claim("django", `{"name":"web-01"}`)
		a.delete(first.path(), "Portmaster-Secret", first.Secret).want(204)
		second := a.claim("django", `{"name":"web-02"}`)
		for _, port := range []string{"0x1388", "5e3", "05000", "5000.0"} {
			for _, secret := range []string{first.Secret, second.Secret} {
				r := a.delete("/v1/services/django/ports/"+port, "Portmaster-Secret", secret)
				if r.problem(404, "PORT_NOT_FOUND"); t.Failed() {
					t.Fatal(port, r)
				}
			}
		}
		equal(t, "all as before", read[allocation](a.get(second.path())), hidden(second))
	})
}
