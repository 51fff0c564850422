package allocator

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// How many ports drain is compared with the ports that are there, and counted anew: with too many the ranges would never be given up,
// with too few before the holders have gone.
func TestCheckCountsWhatDrains(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2299)
		for port := 2000; port < 2300; port += 3 {
			claimPort(t, a, "web", port, time.Duration(port%2)*long)
		}
		drain(t, a, "web", 2100, 2109)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "n2000", Proof{}))
		wantFound(t, a, false, "")
		k := a.keys.Pool(DefaultPool)
		for _, count := range []int{0, 1, 95, 97, 4000} {
			_, _ = a.Service(t.Context(), DefaultPool, "web") // takes out what ended
			now := storeTime(t, store).UnixMilli()
			must(t, store.Admin.HSet(t.Context(), k.Service("web"), "drains", fmt.Sprintf("%d %d 2000-2099,2110-2299", count, now)).Err())
			wantFound(t, a, false, "drains")
			wantFound(t, a, true, "drains")
			wantFound(t, a, true, "")
			wantCounts(t, a, fmt.Sprint("instead of ", count), PortCounts{Total: 106, Free: 7, Allocated: 99, Draining: 96})
		}
	})
}

// While ports drain and ranges change, nothing is found.
func TestCheckOfDrainingUnderLoad(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, 20*time.Millisecond)
		mustDefine(t, a, "web", 2000, 2399)
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() { liveOn(ctx, a, uint64(i)) })
		}
		drained := 0
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				s, _, err := a.Define(ctx, Caller{}, DefaultPool, Definition{Name: "web", Start: 2000 + n%4*50, End: 2399 - n%3*100, Drain: true})
				if err == nil && s.Ports.Draining > 0 {
					drained++
				}
				time.Sleep(30 * time.Millisecond)
			}
		})
		checkFindsNothing(t, a, 20)
		stop()
		clients.Wait()
		if drained == 0 {
			t.Error("nothing drained")
		}
	})
}

// Ports that ended while others were looked at are in the sum, and not in what the service says.
func TestChangedCountIsNotCompared(t *testing.T) {
	ranges := []Range{{2000, 2099}}
	for said, isKnown := range map[string]bool{"5 2000-2099": true, "4 2000-2099": false, "5 2000-2098": false} {
		var d drainsFound
		for _, part := range []string{strings.Replace(said, "4", "5", 1), "", said} {
			d.add([]any{nil, nil, nil, int64(2), part})
		}
		if found, got := d.of(ranges); got != isKnown || isKnown && found != "4 5 2000-2099" {
			t.Errorf("%s: %s, known %v", said, found, got)
		}
	}
}
