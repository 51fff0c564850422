package allocator

import (
	"fmt"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// byName defines a service that picks ports by name.
func byName(t *testing.T, a *Allocator, d Definition) {
	t.Helper()
	d.Name, d.Pick = "web", PickByName
	_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, d)
	must(t, err)
}

// The last holder passes the cooldown of its port. Another owner with the same name does not.
func TestNobodyElsePassesTheCooldown(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		byName(t, a, Definition{Start: 2000, End: 2000, Cooldown: time.Hour})
		claimAs(t, a, bob, Request{Name: "x"})
		must(t, a.Release(t.Context(), bob, DefaultPool, "web", "x", Proof{}))
		for _, other := range []Caller{ann, {}} {
			_, _, err := a.Claim(t.Context(), other, DefaultPool, "web", []Request{{Name: "x"}}, Wait{})
			wantError(t, fmt.Sprintf("of owner %q", other.Owner), err, ErrExhausted)
		}
		claimAs(t, a, bob, Request{Name: "x"})
	})
}

// A name leads to a multiple if one is asked for, and nowhere if a port is preferred.
func TestWhereNamesLead(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		byName(t, a, Definition{Ranges: []Range{{Start: 2001, End: 2099}, {Start: 2101, End: 2399}}})
		for i := range 20 {
			got := claimAs(t, a, bob, Request{Name: fmt.Sprint("n", i), Align: new(8), Count: new(3)})
			if got.Port%8 != 0 {
				t.Errorf("%s leads to %d", got.Name, got.Port)
			}
		}
		for port := 2390; port < 2399; port++ {
			if got := claimAs(t, a, bob, Request{Name: fmt.Sprint("p", port), Prefer: &port}); got.Port != port {
				t.Errorf("who prefers %d gets %d", port, got.Port)
			}
		}
	})
}
