package allocator

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// A pool with services of every size, which one page has no room for: small ones around a large one, blocks, leases that are over.
func TestAllAllocations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		claim := func(service string, r Request) {
			t.Helper()
			_, _, err := claimOne(t.Context(), a, DefaultPool, service, r, 0)
			must(t, err)
		}
		var want, wantLarge []string
		for i := range 130 {
			name, start := fmt.Sprint("s", i), 2000+10*i
			mustDefine(t, a, name, start, start+9)
			if i%5 == 4 {
				continue // has none
			}
			claim(name, Request{Name: "one", Port: new(start + 2)})
			claim(name, Request{Name: "block", Count: new(3), Port: new(start + 5)})
			want = append(want, fmt.Sprintf("%s %d one 1", name, start+2), fmt.Sprintf("%s %d block 3", name, start+5))
		}
		mustDefine(t, a, "large", 5000, 6999)
		for first := 0; first < 1200; first += 100 {
			var requests []Request
			for i := first; i < first+100; i++ {
				requests = append(requests, Request{Name: fmt.Sprint("n", i), Port: new(5000 + i)})
				wantLarge = append(wantLarge, fmt.Sprintf("large %d n%d 1", 5000+i, i))
			}
			_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "large", requests, Wait{})
			must(t, err)
		}
		mustDefine(t, a, "last", 7000, 7001)
		lease := MinLease
		claim("last", Request{Name: "leased", Lease: &lease})
		claim("last", Request{Name: "kept", Port: new(7001)})
		mustDefine(t, a, "out", 8000, 8001)
		claim("out", Request{Name: "of-scope"})
		mustOffer(t, a, "out", "offered")
		time.Sleep(lease + 50*time.Millisecond)

		walked := func(what string, pages iter.Seq2[[]Allocation, error], want []string) {
			t.Helper()
			var got []string
			for page, err := range pages {
				must(t, err)
				if len(page) > MaxPage {
					t.Errorf("%s: a page of %d", what, len(page))
				}
				for _, each := range page {
					got = append(got, fmt.Sprintf("%s %d %s %d", each.Service, each.Port, each.Name, each.Count))
				}
			}
			for i := range max(len(got), len(want)) {
				if i >= min(len(got), len(want)) || got[i] != want[i] {
					t.Fatalf("%s: %d, want %d, and they differ from %d on", what, len(got), len(want), i)
				}
			}
		}
		walked("one service", a.AllAllocations(t.Context(), DefaultPool, "large"), wantLarge)
		inScope := func(service string) bool { return service != "out" }
		want = append(append(want, wantLarge...), "last 7001 kept 1")
		walked("the pool", a.AllPoolAllocations(t.Context(), DefaultPool, inScope), want)
		walked("no pool", a.AllPoolAllocations(t.Context(), "other", inScope), nil)
	})
}

// A walk ends with the one who walks, and with the first error, which it tells.
func TestAllAllocationsEnd(t *testing.T) {
	a := newAllocator(storetest.Mini(t), long)
	all := func(string) bool { return true }
	mustDefine(t, a, "small", 2000, 2009)
	mustDefine(t, a, "large", 3000, 3999)
	for _, service := range []string{"small", "large"} {
		_, _, err := claimOne(t.Context(), a, DefaultPool, service, Request{Name: "one"}, 0)
		must(t, err)
	}
	for range a.AllPoolAllocations(t.Context(), DefaultPool, all) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs []error
	for _, err := range a.AllPoolAllocations(ctx, DefaultPool, all) {
		errs = append(errs, err)
		cancel()
	}
	if len(errs) != 2 || errs[0] != nil || errs[1] == nil {
		t.Errorf("the pages have the errors %v", errs)
	}
	for _, err := range a.AllAllocations(t.Context(), DefaultPool, "none") {
		wantError(t, "no such service", err, ErrServiceNotFound)
	}
}
