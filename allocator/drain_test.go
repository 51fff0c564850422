package allocator

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// drain narrows a service to a range around its holders.
func drain(t *testing.T, a *Allocator, service string, start, end int) Service {
	t.Helper()
	s, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: service, Start: start, End: end, Drain: true})
	must(t, err)
	return s
}

func claimPort(t *testing.T, a *Allocator, service string, port int, lease time.Duration) Allocation {
	t.Helper()
	r := Request{Name: fmt.Sprint("n", port), Port: &port}
	if lease > 0 {
		r.Lease = &lease
	}
	allocation, _, err := claimOne(t.Context(), a, DefaultPool, service, r, 0)
	must(t, err)
	return allocation
}

// wantCounts looks for the figures of a service, and for keys that contradict each other.
func wantCounts(t *testing.T, a *Allocator, what string, want PortCounts) {
	t.Helper()
	s, err := a.Service(t.Context(), DefaultPool, "web")
	must(t, err)
	if s.Ports != want {
		t.Errorf("%s: %+v, want %+v", what, s.Ports, want)
	}
	must(t, a.CheckKeys(t.Context(), DefaultPool, false, func(i Inconsistency) { t.Errorf("%s: %+v", what, i) }))
}

// Ports that are held when they leave the range stay held until that ends, however it does, and nobody else gets them.
func TestDrain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := New(store.Client, Options{
			KeyPrefix: store.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: 5 * time.Second, MaxWait: time.Minute, Quarantine: long,
		})
		mustDefine(t, a, "web", 2000, 2009)
		lasting, leased := claimPort(t, a, "web", 2005, 0), claimPort(t, a, "web", 2006, long)
		accepted, rejected, used := mustOffer(t, a, "web", "accepted"), mustOffer(t, a, "web", "rejected"), mustOffer(t, a, "web", "used")
		claimPort(t, a, "web", 2009, 0)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "2009", Proof{}))
		_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2003, End: 2004})
		wantError(t, "without drain", err, ErrRangeInUse)
		s := drain(t, a, "web", 2003, 2004)
		want := PortCounts{Total: 7, Free: 2, Offered: 3, Allocated: 2, Draining: 5}
		if s.Ports != want || s.Start != 2003 || s.Ranges != nil {
			t.Errorf("%+v, want %+v", s, want)
		}
		wantCounts(t, a, "narrowed", want)
		_, err = a.Create(t.Context(), Caller{}, DefaultPool, Definition{Name: "db", Start: 2005, End: 2009})
		wantError(t, "they drain", err, ErrRangeOverlap)
		err = a.Remove(t.Context(), Caller{}, DefaultPool, "web")
		wantError(t, "ports are held", err, ErrServiceInUse)

		mustAccept(t, a, accepted)
		mustReject(t, a, rejected)
		wantCounts(t, a, "rejected", PortCounts{Total: 6, Free: 2, Offered: 1, Allocated: 3, Draining: 4})
		_, err = a.Reject(t.Context(), Caller{}, DefaultPool, "web", used.Secret, true)
		must(t, err)
		wantCounts(t, a, "rejected as in use", PortCounts{Total: 5, Free: 2, Allocated: 3, Draining: 3})
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", lasting.Name, Proof{}))
		wantCounts(t, a, "released", PortCounts{Total: 4, Free: 2, Allocated: 2, Draining: 2})
		var ports []int
		for _, name := range []string{"a", "b"} {
			ports = append(ports, mustOffer(t, a, "web", name).Port)
		}
		if !slices.Equal(ports, []int{2003, 2004}) {
			t.Errorf("offered %v", ports)
		}
		_, _, err = offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "c"}, 0)
		wantError(t, "no port of the range is free", err, ErrExhausted)
		_, err = a.Renew(t.Context(), Caller{}, DefaultPool, "web", "2006", leased.Secret, optional(short))
		must(t, err)
		passes(t, store, short)
		wantCounts(t, a, "the lease ended", PortCounts{Total: 3, Offered: 2, Allocated: 1, Draining: 1})
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "accepted", Proof{}))
		wantCounts(t, a, "all are given back", PortCounts{Total: 2, Offered: 2})

		// The ports are gone: nothing of them is left, and another service may have them, but for the rest of one.
		db := mustDefine(t, a, "db", 2000, 2002)
		if db.Ports != (PortCounts{Total: 3, Free: 2, Cooling: 1}) {
			t.Errorf("%+v", db.Ports)
		}
		k := a.keys.Pool(DefaultPool)
		if left := store.Admin.HGet(t.Context(), k.Service("web"), "drains").Val(); left != "" {
			t.Errorf("left: %s", left)
		}
		if left := store.Admin.HLen(t.Context(), k.Names("web")).Val() + store.Admin.ZCard(t.Context(), k.Free("web")).Val(); left != 4 {
			t.Errorf("left: %d names and scores, want those of two offers", left)
		}
	})
}

// Ports that drain come back with the range, held or not; those that go on draining are counted.
func TestDrainAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		block, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "block", Port: optional(2004), Count: optional(4)}, 0)
		must(t, err)
		claimPort(t, a, "web", 2000, 0)
		claimPort(t, a, "web", 2009, 0)
		drain(t, a, "web", 2002, 2005)
		wantCounts(t, a, "narrowed", PortCounts{Total: 8, Free: 2, Allocated: 6, Draining: 4})
		drain(t, a, "web", 2003, 2003)
		wantCounts(t, a, "narrowed more", PortCounts{Total: 7, Free: 1, Allocated: 6, Draining: 6})
		mustDefine(t, a, "web", 2003, 2003)
		wantCounts(t, a, "defined as it is", PortCounts{Total: 7, Free: 1, Allocated: 6, Draining: 6})
		mustDefine(t, a, "web", 2002, 2006)
		wantCounts(t, a, "widened", PortCounts{Total: 8, Free: 2, Allocated: 6, Draining: 3})
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "2000", Proof{}))
		mustDefine(t, a, "web", 2000, 2006)
		wantCounts(t, a, "widened to a port that was given back", PortCounts{Total: 9, Free: 4, Allocated: 5, Draining: 2})
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", block.Name, Proof{}))
		wantCounts(t, a, "the block is given back", PortCounts{Total: 8, Free: 7, Allocated: 1, Draining: 1})
		var ports []int
		for i := range 7 {
			ports = append(ports, mustOffer(t, a, "web", fmt.Sprint("o", i)).Port)
		}
		slices.Sort(ports)
		if !slices.Equal(ports, []int{2000, 2001, 2002, 2003, 2004, 2005, 2006}) {
			t.Errorf("offered %v", ports)
		}
		mustDefine(t, a, "web", 2000, 2009)
		wantCounts(t, a, "as it was", PortCounts{Total: 10, Free: 2, Offered: 7, Allocated: 1})
	})
}

// So many ports are more than one script looks at.
func TestManyPortsDrain(t *testing.T) {
	t.Parallel()
	const ports = 3000
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000+2*ports)
		for i := range ports / MaxRequests {
			var some []Request
			for j := range MaxRequests {
				some = append(some, Request{Name: fmt.Sprintf("n%d", i*MaxRequests+j), Lease: optional(long)})
			}
			_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "web", some, Wait{})
			must(t, err)
		}
		s := drain(t, a, "web", 3000, 3000+ports)
		want := PortCounts{Total: 4001, Free: 1001, Allocated: 3000, Draining: 1000}
		if s.Ports != want {
			t.Errorf("%+v, want %+v", s.Ports, want)
		}
		for i := range ports {
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", fmt.Sprint("n", ports-1-i), Proof{}))
		}
		s, err := a.Service(t.Context(), DefaultPool, "web")
		must(t, err)
		if want := (PortCounts{Total: ports + 1, Free: ports + 1}); s.Ports != want {
			t.Errorf("%+v, want %+v", s.Ports, want)
		}
		mustDefine(t, a, "db", 2000, 2999)
	})
}

// After the clock stepped back, a hold may end before the time up to which ends were looked at; it is found all the same.
func TestDrainWhileTheClockStepsBack(t *testing.T) {
	t.Parallel()
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2002)
	claimPort(t, a, "web", 2001, 0)
	claimPort(t, a, "web", 2002, 0)
	back := inTheFuture(t, store, time.Minute)
	drain(t, a, "web", 2000, 2000)
	back()
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "n2002", Proof{}))
	passes(t, store, 10*time.Second)
	must(t, a.epoch.MendClock(t.Context(), time.Minute))
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "n2001", Proof{}))
	passes(t, store, 2*time.Minute) // nobody looked meanwhile
	wantCounts(t, a, "released before the last look", PortCounts{Total: 1, Free: 1})
	if o := mustOffer(t, a, "web", "ann"); o.Port != 2000 {
		t.Errorf("offered port %d", o.Port)
	}
}
