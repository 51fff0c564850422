package allocator

import (
	"testing"

	"portmaster/allocator/storetest"
)

// The fence of a pool only grows: across services, and after a service is gone.
func TestFenceGrows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		for want := int64(1); want <= 6; want++ {
			service := []string{"web", "db"}[want%2]
			mustDefine(t, a, service, 2000+int(want)*10, 2009+int(want)*10)
			got := mustAccept(t, a, mustOffer(t, a, service, "ann"))
			if got.Fence != want {
				t.Errorf("fence %d, want %d", got.Fence, want)
			}
			must(t, a.Release(t.Context(), DefaultPool, service, "ann", Proof{Fences: []int64{got.Fence}}))
			must(t, a.Remove(t.Context(), DefaultPool, service))
		}
	})
}

func TestFenceOfTheHolderBefore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000)
		ann := mustAccept(t, a, mustOffer(t, a, "web", "ann"))
		must(t, a.Release(t.Context(), DefaultPool, "web", "2000", Proof{}))
		bob := mustAccept(t, a, mustOffer(t, a, "web", "bob"))
		wantError(t, "ann's fence", a.Release(t.Context(), DefaultPool, "web", "2000", Proof{Fences: []int64{ann.Fence}}), ErrPreconditionFailed)
		if still, err := a.Allocation(t.Context(), DefaultPool, "web", "bob"); err != nil || still != bob {
			t.Errorf("bob has %+v, error %v", still, err)
		}
		wantError(t, "a port written in another way", a.Release(t.Context(), DefaultPool, "web", "02000", Proof{}), ErrPortNotFound)
		must(t, a.Release(t.Context(), DefaultPool, "web", "2000", Proof{Fences: []int64{ann.Fence, bob.Fence}}))
		wantError(t, "again", a.Release(t.Context(), DefaultPool, "web", "bob", Proof{}), ErrPortNotFound)
	})
}
