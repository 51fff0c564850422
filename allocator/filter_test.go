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
