package allocator

import (
	"fmt"
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

// A page ends at the bounds of what it reads, though nothing of it is meant, and the next ones have the rest.
func TestPagesAreBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "many", 20_000, 20_000+portsPerPage+99)
		for i := range portsPerPage/MaxCount + 1 {
			_, _, err := claimOne(t.Context(), a, DefaultPool, "many", Request{Name: fmt.Sprint("n", i), Count: new(MaxCount)}, 0)
			must(t, err)
		}
		mustDefine(t, a, "large", 2000, 2999)
		values := map[string]string{"last": ""}
		for i := range 8 {
			values[fmt.Sprint("k", i)] = strings.Repeat("x", 240)
		}
		const holders = 4 * portsPerCommand // of some 2 KiB each
		for first := 0; first < holders; first += 10 {
			var requests []Request
			for i := first; i < first+10; i++ {
				values["last"] = fmt.Sprint(i == holders-1)
				requests = append(requests, Request{Name: fmt.Sprint("n", i), Labels: NewLabels(values)})
			}
			_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "large", requests, Wait{})
			must(t, err)
		}
		for service, of := range map[string]Filter{"many": {NamePrefix: "n100"}, "large": {Label: "last=true"}} {
			first, next, err := a.Allocations(t.Context(), DefaultPool, service, of, "", MaxPage)
			must(t, err)
			if len(first) > 0 || next == "" {
				t.Errorf("%s: the first page has %d, and the next is %q", service, len(first), next)
			}
			rest, next, err := a.Allocations(t.Context(), DefaultPool, service, of, next, MaxPage)
			must(t, err)
			if len(rest) != 1 || next != "" {
				t.Errorf("%s: the second page has %d, and the next is %q", service, len(rest), next)
			}
		}
	})
}

// What matches is released, with its labels, and nothing else: not what others own, nor what the port has got meanwhile.
func TestReleaseMatching(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2199)
		all := map[string]Caller{"ann": {Owner: ann.Owner}, "bob": bob, "own": nobody}
		for i := range 10 {
			for name, caller := range all {
				claimAs(t, a, caller, Request{Name: fmt.Sprint(name, "-", i), Labels: []Labels{job, other}[i%2], Count: new(1 + i%3)})
			}
		}
		offerAs(t, a, bob, Request{Name: "bob-o", Labels: job})
		for _, test := range []struct {
			caller Caller
			of     Filter
			want   int
		}{
			{bob, Filter{Label: "job=none"}, 0},
			{bob, Filter{Label: "job=4711", NamePrefix: "bob-"}, 5},
			{bob, Filter{Label: "job=4712", Name: "own-1"}, 1},
			{bob, Filter{Name: "ann-0"}, 0},
			{bob, Filter{Label: "job=4712"}, 5 + 4},
			{operator, Filter{Label: "job=4712", Owner: ann.Owner}, 5},
			{nobody, Filter{Label: "job=4711"}, 5 + 5},
			{nobody, Filter{Label: "job=4711"}, 0},
		} {
			released, err := a.ReleaseMatching(ctx, test.caller, DefaultPool, "web", test.of)
			if len(released) != test.want || err != nil {
				t.Errorf("%+v: %d released, want %d, error %v", test.of, len(released), test.want, err)
			}
		}
		_, err := a.ReleaseMatching(ctx, bob, DefaultPool, "web", Filter{Label: "job=4711", Owner: ann.Owner})
		wantError(t, "what another owns", err, ErrNotOwner)
		if left, _, err := a.Allocations(ctx, DefaultPool, "web", Filter{}, "", MaxPage); len(left) > 0 || err != nil {
			t.Errorf("left are %v, error %v", left, err)
		}
		claimAs(t, a, nobody, Request{Name: "x", Port: new(2000), Labels: job})
		page, _, err := a.Allocations(ctx, DefaultPool, "web", Filter{Label: "job=4711"}, "", MaxPage)
		must(t, err)
		must(t, a.Release(ctx, Caller{}, DefaultPool, "web", "x", Proof{}))
		claimAs(t, a, nobody, Request{Name: "x", Port: new(2000), Labels: job})
		if released, err := a.releaseEach(ctx, "", DefaultPool, page); len(released) > 0 || err != nil {
			t.Errorf("the next holder lost %v, error %v", released, err)
		}
	})
}
