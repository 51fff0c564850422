package allocator

import (
	"testing"

	"portmaster/allocator/storetest"
)

// The fence of a pool only grows: across services, and after a service is gone. It is the time, so that it does so, too, where
// the state was lost meanwhile; of several at one time it counts on.
func TestFenceGrows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		last := storeTime(t, store).UnixMicro() - 1
		for i := range 6 {
			service := []string{"web", "db"}[i%2]
			mustDefine(t, a, service, 2000+i*10, 2009+i*10)
			got := mustAccept(t, a, mustOffer(t, a, service, "ann"))
			if got.Fence <= last || got.Fence > storeTime(t, store).UnixMicro() {
				t.Errorf("fence %d after %d", got.Fence, last)
			}
			last = got.Fence
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, service, "ann", Proof{Fences: []int64{got.Fence}}))
			must(t, a.Remove(t.Context(), Caller{}, DefaultPool, service))
		}
	})
}

func TestFenceOfTheHolderBefore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000)
		ann := mustAccept(t, a, mustOffer(t, a, "web", "ann"))
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "2000", Proof{}))
		bob := mustAccept(t, a, mustOffer(t, a, "web", "bob"))
		wantError(t, "ann's fence", a.Release(t.Context(), Caller{}, DefaultPool, "web", "2000", Proof{Fences: []int64{ann.Fence}}), ErrPreconditionFailed)
		if still, err := a.Allocation(t.Context(), DefaultPool, "web", "bob"); err != nil || still != bob {
			t.Errorf("bob has %+v, error %v", still, err)
		}
		wantError(t, "a port written in another way", a.Release(t.Context(), Caller{}, DefaultPool, "web", "02000", Proof{}), ErrPortNotFound)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "2000", Proof{Fences: []int64{ann.Fence, bob.Fence}}))
		wantError(t, "again", a.Release(t.Context(), Caller{}, DefaultPool, "web", "bob", Proof{}), ErrPortNotFound)
	})
}
