package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

// What has an owner says so; lists can be narrowed to one, and all of one can be released.
func TestOwners(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.post("/v1/services", `{"name":"django","start":5000,"end":5099}`).want(201)
		ports := allocator.New(store.Client, allocator.Options{
			KeyPrefix: store.Prefix, OfferTTL: time.Hour, PortMin: 5000, PortMax: 5099, Timeout: 5 * time.Second,
		})
		owner := allocator.Caller{Owner: "ci:a/b@c+d", Held: 4}
		claim := func(caller allocator.Caller, name string) {
			t.Helper()
			_, _, err := ports.Claim(t.Context(), caller, allocator.DefaultPool, "django", []allocator.Request{{Name: name}}, allocator.Wait{})
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			claim(owner, fmt.Sprintf("a%d", i))
			claim(allocator.Caller{}, fmt.Sprintf("b%d", i))
		}
		offers, _, err := ports.Offer(t.Context(), owner, allocator.DefaultPool, "django", []allocator.Request{{Name: "o"}}, allocator.Wait{})
		if err != nil {
			t.Fatal(err)
		}
		const list, of = "/v1/services/django/ports", "owner=ci:a/b@c%2Bd"
		if got := a.get(list + "/a0").want(200).body; !strings.Contains(got, `,"owner":"ci:a/b@c+d",`) {
			t.Errorf("the allocation is %s", got)
		}
		if got := a.get("/v1/services/django/offers/" + offers[0].Secret).want(200).body; !strings.Contains(got, `,"owner":"ci:a/b@c+d",`) {
			t.Errorf("the offer is %s", got)
		}
		if got := a.get(list + "/b0").want(200).body; strings.Contains(got, "owner") {
			t.Errorf("what nobody owns is %s", got)
		}
		first := a.get(list + "?limit=2&" + of).want(200)
		next, _, _ := strings.Cut(strings.TrimPrefix(first.header.Get("Link"), "<"), ">")
		if n := strings.Count(first.body, `"name":"a`); n != 2 || !strings.HasSuffix(next, of[:6]+"ci%3Aa%2Fb%40c%2Bd") {
			t.Errorf("%d on the first page, and the next is %s", n, next)
		}
		if rest := a.get(next).want(200).body; strings.Count(rest, `"name":`) != 1 {
			t.Errorf("the second page is %s", rest)
		}
		if open := a.get("/v1/services/django/offers?owner=other").want(200).body; strings.TrimSpace(open) != "[]" {
			t.Errorf("another's offers are %s", open)
		}
		a.get(list+"?owner=%22").problem(400, "INVALID")
		a.delete(list).problem(400, "INVALID")
		a.delete(list+"?owner=").problem(400, "INVALID")
		a.delete("/v1/services/none/ports?"+of).problem(404, "SERVICE_NOT_FOUND")
		for _, want := range []string{"3", "0"} {
			if got := a.delete(list + "?" + of).want(200).body; strings.TrimSpace(got) != `{"released":`+want+`}` {
				t.Errorf("released: %s, want %s", got, want)
			}
		}
		if left := a.get(list).want(200).body; strings.Count(left, `"name":"b`) != 3 || strings.Contains(left, `"name":"a`) {
			t.Errorf("left are %s", left)
		}
	})
}
