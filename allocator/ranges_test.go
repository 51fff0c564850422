package allocator

import (
	"fmt"
	"slices"
	"testing"

	"portmaster/allocator/storetest"
)

// What lies between two ranges is not of the service, and the pool has the same ranges as the service.
func TestCheckOfSeveralRanges(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		d := Definition{Name: "web", Ranges: []Range{{2000, 2099}, {2200, 2201}, {2300, 2399}}, Exclude: []Range{{2050, 2050}}}
		s, _, err := a.Define(t.Context(), Caller{}, DefaultPool, d)
		if err != nil || textOf(s.Ranges) != "2000-2049,2051-2099,2200-2201,2300-2399" || s.Ports.Total != 201 {
			t.Fatalf("%+v, %v", s, err)
		}
		mustDefine(t, a, "db", 2050, 2050)
		for _, r := range s.Ranges {
			for port := r.Start; port <= r.End; port++ {
				_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: fmt.Sprint("n", port), Port: &port}, 0)
				must(t, err)
			}
		}
		_, _, err = claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "more"}, 0)
		wantError(t, "a port more than there are", err, ErrExhausted)
		found := func() (codes []string) {
			t.Helper()
			must(t, a.CheckKeys(t.Context(), DefaultPool, true, func(i Inconsistency) { codes = append(codes, i.Code+" "+i.Entry) }))
			return codes
		}
		if codes := found(); codes != nil {
			t.Errorf("found %v", codes)
		}
		k := a.keys.Pool(DefaultPool)
		command(t, a, "ZADD", k.Free("web"), 1, "2150")
		command(t, a, "ZADD", k.Fresh("web"), 2049, "2051")
		command(t, a, "ZREM", k.Ranges(), "web 2200-2201")
		got := found()
		slices.Sort(got)
		want := []string{"held_and_fresh 2049", "held_and_fresh 2051", "outside 2051", "outside 2150", "range web"}
		if !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", got, want)
		}
		if got := found(); !slices.Equal(got, []string{"range web"}) {
			t.Errorf("after the repair, found %v", got)
		}
		_, _, err = a.Define(t.Context(), Caller{}, DefaultPool, d)
		must(t, err)
		if codes := found(); codes != nil {
			t.Errorf("defined again, found %v", codes)
		}
	})
}

// A server that knows no ranges keeps start and end alone: what it has changed or removed is what counts.
func TestRangesAfterAnOlderServer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		define := func(service string, ranges ...Range) (Service, error) {
			s, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: service, Ranges: ranges})
			return s, err
		}
		_, err := define("web", Range{2000, 2009}, Range{2020, 2029})
		must(t, err)
		k := a.keys.Pool(DefaultPool)
		must(t, store.Admin.HSet(t.Context(), k.Service("web"), "end", 2009).Err())
		s, err := a.Service(t.Context(), DefaultPool, "web")
		if err != nil || s.Ranges != nil || s.Ports.Total != 10 {
			t.Errorf("narrowed, it is %+v, %v", s, err)
		}
		outside := func(port int) {
			t.Helper()
			_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "out", Port: &port}, 0)
			wantError(t, "a port that the older server took away", err, ErrInvalid)
		}
		outside(2025)
		must(t, store.Admin.HSet(t.Context(), k.Service("web"), "start", 2020, "end", 2029).Err())
		outside(2005)
		_, err = define("gone", Range{3000, 3009}, Range{3020, 3029})
		must(t, err)
		must(t, store.Admin.ZRem(t.Context(), k.Services(), "gone").Err())
		must(t, store.Admin.Del(t.Context(), k.Service("gone"), k.Fresh("gone"), k.RunLengths("gone")).Err())
		if _, err := define("new", Range{3005, 3024}); err != nil {
			t.Errorf("over one that was removed: %v", err)
		}
	})
}

// Single claims that use up a run leave its length behind, which is no contradiction, and no block is cut from it.
func TestCheckAfterRunsAreUsedUp(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		sound := func(ranges ...Range) {
			t.Helper()
			_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Ranges: ranges})
			must(t, err)
			wantFound(t, a, false, "")
		}
		sound(Range{2000, 2001}, Range{2010, 2011})
		for _, name := range []string{"a", "b", "c", "d"} {
			mustClaim(t, a, Request{Name: name})
		}
		lengths, err := store.Admin.ZCard(t.Context(), a.keys.Pool(DefaultPool).RunLengths("web")).Result()
		if err != nil || lengths != 2 {
			t.Errorf("%d lengths are left, %v", lengths, err)
		}
		wantFound(t, a, false, "")
		for _, name := range []string{"c", "d"} {
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", name, Proof{}))
		}
		sound(Range{2000, 2001})
		_, _, err = claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "e", Count: new(2)}, 0)
		wantError(t, "a block of a run that is used up", err, ErrExhausted)
		sound(Range{2000, 2001}, Range{2009, 2013})
		if got := mustClaim(t, a, Request{Name: "e", Count: new(4)}); got.Port != 2009 {
			t.Errorf("the block is at %d", got.Port)
		}
		wantFound(t, a, false, "")
	})
}

// Ports that leave on both sides of a holder do not meet it, however many they are; those of its block do.
func TestNarrowingAroundAHolder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2999)
		mustClaim(t, a, Request{Name: "ann", Port: new(2500), Count: new(2)})
		mustClaim(t, a, Request{Name: "ben", Port: new(2900)}) // a range that is fresh as a whole is not searched
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ben", Proof{}))
		for _, ranges := range [][]Range{{{2500, 2500}}, {{2501, 2501}}, {{2000, 2499}, {2502, 2999}}} {
			_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Ranges: ranges})
			wantError(t, textOf(ranges), err, ErrRangeInUse)
		}
		if s := mustDefine(t, a, "web", 2500, 2501); s.Ports.Total != 2 || s.Ports.Allocated != 2 {
			t.Errorf("%+v", s)
		}
		wantFound(t, a, false, "")
	})
}
