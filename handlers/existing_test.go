package handlers

import (
	"slices"
	"testing"

	"portmaster/allocator/storetest"
)

// Of a list, the audit has a line for each name that got a port; if all had theirs, they are repeated.
func TestAuditOfExisting(t *testing.T) {
	lines, on := auditing(false)
	a := newAPI(t, storetest.Mini(t), on)
	a.define("django", "5000-5009")
	a.claim("django", `{"name":"web-01"}`)
	lines.take(t)
	for _, want := range [][]string{
		{"claim default django web-02 5001 F OK"},
		{"claim default django web-01 5000 F OK true", "claim default django web-02 5001 F OK true"},
	} {
		a.post("/v1/services/django/ports", `[{"name":"web-01","existing":true},{"name":"web-02","existing":true}]`)
		if got := lines.take(t); !slices.Equal(got, want) {
			t.Errorf("the audit says %q, want %q", got, want)
		}
	}
}

// A claim that takes what exists is answered with 200 and without a secret; one that does not exist, with 201 and its secret.
func TestExisting(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		path, body := "/v1/services/django/ports", `{"name":"web-01","existing":true}`
		claimed := read[allocation](a.post(path, body).want(201))
		if claimed.Secret == "" {
			t.Error("what is new has no secret")
		}
		r := a.post(path, body).want(200)
		equal(t, "Location", r.header.Get("Location"), claimed.path())
		equal(t, "the same, without its secret", read[allocation](r), hidden(claimed))
		equal(t, "at once", read[allocation](a.post(path+"?wait=1s", body).want(200)), hidden(claimed))

		mixed := `[{"name":"web-02","existing":true},{"name":"web-01","existing":true}]`
		list := read[[]allocation](a.post(path, mixed).want(201))
		equal(t, "beside a new one", list[1], hidden(claimed))
		if list[0].Secret == "" {
			t.Error("what is new beside it has no secret")
		}
		equal(t, "of the whole list", len(read[[]allocation](a.post(path, mixed).want(200))), 2)

		a.post("/v1/services/django/offers", body).invalid("existing")
		a.post("/v1/services/django/offers", mixed).invalid("[0].existing", "[1].existing")
		a.post(path, `{"name":"web-01","existing":null}`).invalid("existing")
		a.post(path, `{"name":"web-01","existing":"yes"}`).invalid("existing")
		a.offer("django", "web-03")
		a.post(path, `{"name":"web-03","existing":true}`).problem(409, "NAME_TAKEN")
		a.post(path, `{"name":"web-01","existing":false}`).problem(409, "NAME_TAKEN")
	})
}
