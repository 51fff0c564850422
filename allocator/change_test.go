package allocator

import (
	"strconv"
	"sync"
	"testing"

	"portmaster/allocator/storetest"
)

// Many changes of one service at once are all made, and are not tried as often as there are others.
func TestManyChangesAtOnce(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2099)
	const many = 60
	counts := commandsOf(t, store, func() {
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				_, err := a.Change(t.Context(), Caller{}, DefaultPool, "web", func(d *Definition) error {
					d.Description += strconv.Itoa(i % 10)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
	s, err := a.Service(t.Context(), DefaultPool, "web")
	must(t, err)
	if len(s.Description) != many {
		t.Errorf("of %d changes %d were made", many, len(s.Description))
	}
	if most := 40 * many; counts["evalsha"] > most {
		t.Errorf("%d changes took %d scripts, want at most %d", many, counts["evalsha"], most)
	}
}
