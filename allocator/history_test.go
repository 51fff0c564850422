package allocator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// events returns what the history of a service of the default pool says, an event a line, oldest first.
func events(t *testing.T, store storetest.Store, service string) (lines []string) {
	t.Helper()
	entries, err := store.Admin.XRange(t.Context(), store.Prefix+":{default}:events:"+service, "-", "+").Result()
	must(t, err)
	for _, entry := range entries {
		line := fmt.Sprint(entry.Values["event"])
		for _, field := range []string{"name", "port", "count", "fence", "owner", "request", "until", "start", "end"} {
			if value, is := entry.Values[field]; is {
				line += fmt.Sprintf(" %s=%s", field, value)
				delete(entry.Values, field)
			}
		}
		if len(entry.Values) > 1 {
			line += fmt.Sprint(entry.Values)
		}
		lines = append(lines, line)
	}
	return lines
}

// withHistory returns an Allocator that writes the history, whose calls have the request id "r1".
func withHistory(store storetest.Store, length int) *Allocator {
	a := newAllocator(store, long)
	a.opts.History = length
	return a
}

func TestEventsOfPorts(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := withHistory(store, 100)
		ctx, nobody := t.Context(), Caller{RequestID: "r1"}
		ci := Caller{Owner: "ci", RequestID: "r2"}
		mustDefine(t, a, "web", 2000, 2199)
		var want []string
		expect := func(format string, args ...any) {
			t.Helper()
			want = append(want, fmt.Sprintf(format, args...))
			if got := events(t, store, "web"); !slices.Equal(got, want) {
				t.Fatalf("the history is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}

		offer := mustOffer(t, a, "web", "ann")
		plain, _, err := a.Accept(ctx, nobody, DefaultPool, "web", offer.Secret, nil)
		must(t, err)
		expect("allocated name=ann port=2000 fence=%d request=r1", plain.Fence)
		must(t, a.Release(ctx, nobody, DefaultPool, "web", "ann", Proof{}))
		expect("released name=ann port=2000 fence=%d request=r1", plain.Fence)

		leased, _, err := a.Claim(ctx, ci, DefaultPool, "web", []Request{{Name: "job", Lease: new(time.Hour)}}, Wait{})
		must(t, err)
		until := leased[0].Expires.UnixMilli()
		expect("allocated name=job port=%d fence=%d owner=ci request=r2 until=%d", leased[0].Port, leased[0].Fence, until)
		must(t, a.Release(ctx, ci, DefaultPool, "web", "job", Proof{Secret: leased[0].Secret}))
		expect("released name=job port=%d fence=%d owner=ci request=r2 until=%d", leased[0].Port, leased[0].Fence, until)
	})
}
