package allocator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// A search for a multiple that takes several scripts finds a port that became free behind it, and says that there is none only if there
// is none.
func TestSearchForAMultiple(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		const first, last = 4000, 12191
		mustDefine(t, a, "web", first, last)
		var requests []Request
		claim := func(port int) {
			t.Helper()
			if port > 0 {
				requests = append(requests, Request{Name: fmt.Sprint("n", port), Port: &port})
			}
			if port == 0 || len(requests) == MaxRequests {
				_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "web", requests, Wait{})
				must(t, err)
				requests = nil
			}
		}
		for port := first; port <= last; port += 4 {
			claim(port)
		}
		claim(first + 3)
		claim(first + 5)
		claim(0)

		// Between two multiples of 4, 3 ports each were never handed out.
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "x", Align: new(4)}, 0)
		wantError(t, "no multiple is free", err, ErrExhausted)
		k := a.keys.Pool(DefaultPool)
		if left := command(t, a, "HGET", k.Service("web"), "unaligned"); left != nil {
			t.Errorf("the search has ended, and left %v", left)
		}
		search := acquisition{pool: DefaultPool, service: "web", script: lua.Claim, remember: remembered, requests: []Request{{Name: "x", Align: new(4)}}}
		generateSecrets(search.requests)
		grant := func() any {
			answer, err := a.grant(t.Context(), DefaultPool, a.callOf(search, "", false))
			must(t, err)
			return answer
		}
		if got := grant(); got != again {
			t.Fatalf("the first script answers %v", got)
		}
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", fmt.Sprint("n", first+4), Proof{}))
		_, _, err = claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "y", Count: new(9)}, 0) // it coalesces what was given back
		wantError(t, "no block is free", err, ErrExhausted)
		answer := grant()
		record, _ := recordOf(answer)
		got, err := parseAllocation("web", record)
		if err != nil || got.Port != first+4 {
			t.Errorf("got %v, %v", answer, err)
		}

		// One with another shape does not disturb it, nor do ten.
		for align := 2; align <= MaxAlign; align *= 2 {
			_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: fmt.Sprint("z", align), Align: &align, Count: new(4)}, 0)
			wantError(t, fmt.Sprint("4 ports from a multiple of ", align), err, ErrExhausted)
		}

		// Of many searches that have not ended, eight are remembered.
		for i := range 10 {
			search.requests = []Request{{Name: "v", Align: new(4 << (i / 3)), Count: new(1 + i%3)}}
			generateSecrets(search.requests)
			grant()
		}
		if left := command(t, a, "HGET", k.Service("web"), "unaligned"); strings.Count(fmt.Sprint(left), "<") != 8 {
			t.Errorf("of ten searches, these are remembered: %v", left)
		}
	})
}

// What waits for a multiple lets others pass while none is free, and gets the next one.
func TestWaitForAMultiple(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 5000, 5005)
		for _, port := range []int{5000, 5002, 5004} {
			_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: fmt.Sprint("n", port), Port: &port}, 0)
			must(t, err)
		}
		type result struct {
			allocation Allocation
			err        error
		}
		results := make(chan result, 1)
		go func() {
			allocation, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "rtp", Align: new(2)}, 20*time.Second)
			results <- result{allocation, err}
		}()
		for s := (Service{}); s.Waiting == 0; time.Sleep(5 * time.Millisecond) {
			var err error
			s, err = a.Service(t.Context(), DefaultPool, "web")
			must(t, err)
		}
		for _, name := range []string{"a", "b"} {
			if got, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: name}, 0); err != nil || got.Port%2 == 0 {
				t.Errorf("%s got %d, %v", name, got.Port, err)
			}
		}
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "c"}, 0)
		wantError(t, "the last port, for which a call waits", err, ErrExhausted)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "n5002", Proof{}))
		if got := <-results; got.err != nil || got.allocation.Port != 5002 {
			t.Errorf("got %d, %v", got.allocation.Port, got.err)
		}
	})
}

// A row that fits just so is one.
func TestMultipleThatFits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2001, 2003)
		got := claimAs(t, a, bob, Request{Name: "x", Align: new(2), Count: new(2)})
		if got.Port != 2002 {
			t.Errorf("the ports from %d, want 2002", got.Port)
		}
	})
}
