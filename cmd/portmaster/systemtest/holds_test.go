//go:build !faults

package systemtest

import (
	"cmp"
	"slices"
	"testing"
	"time"
)

// hold is a port, or several in a row, that one holder had for a while.
type hold struct {
	port, count int
	fence       int64
	from        time.Time // by the clock of Redis, in whole milliseconds
	until       time.Time // when it began to give it back, or its lease ended
}

// byPort returns who had each port, in order.
func byPort(holds []hold) map[int][]hold {
	of := map[int][]hold{}
	for _, h := range holds {
		for port := h.port; port < h.port+h.count; port++ {
			of[port] = append(of[port], h)
		}
	}
	for _, all := range of {
		slices.SortFunc(all, func(a, b hold) int { return cmp.Compare(a.fence, b.fence) })
	}
	return of
}

// checkHeldByOne finds ports that two had at a time. The clock of Redis is that of this machine.
func checkHeldByOne(t *testing.T, holds []hold) {
	t.Helper()
	fences := map[int64]bool{}
	for _, h := range holds {
		if fences[h.fence] {
			t.Errorf("fence %d was given twice", h.fence)
		}
		fences[h.fence] = true
	}
	for port, all := range byPort(holds) {
		for i, h := range all[1:] {
			if before := all[i]; h.from.Before(before.until.Truncate(time.Millisecond)) {
				t.Errorf("port %d went to fence %d at %s, while fence %d had it until %s", port, h.fence, h.from, before.fence, before.until)
			}
		}
	}
}

// percentile returns the figure that a share of all do not exceed.
func percentile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(share*float64(len(all))))].Round(100 * time.Microsecond)
}
