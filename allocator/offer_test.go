package allocator

import (
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

func TestNamesOfOffersThatRanOutAreCleared(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, short)
		mustDefine(t, a, "web", 2000, 2000)
		mustOffer(t, a, "web", "ann")
		passes(t, store, short)
		mustOffer(t, a, "web", "bob") // her port
		if got := fields(t, store, "names:web"); got != "bob" {
			t.Errorf("names %q, want bob", got)
		}
		mustDefine(t, a, "web", 2000, 2001)
		passes(t, store, short)
		carl := mustOffer(t, a, "web", "carl") // bob's port
		bob := mustOffer(t, a, "web", "bob")   // a new one
		if carl.Port != 2000 || bob.Port != 2001 {
			t.Errorf("ports %d and %d, want 2000 and 2001", carl.Port, bob.Port)
		}
	})
}

// Who comes back after his offer ran out gets the port that has been free the longest, and leaves no trace at his old one.
func TestSameNameAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		const soon = 3 * short // so that hers is rejected before his runs out, however slow the machine
		quick, slow := newAllocator(store, soon), newAllocator(store, long)
		mustDefine(t, slow, "web", 2000, 2001)
		first := mustOffer(t, slow, "web", "ann")
		mustOffer(t, quick, "web", "bob") // 2001
		mustReject(t, slow, first)
		passes(t, store, soon)
		if again := mustOffer(t, slow, "web", "bob"); again.Port != 2000 {
			t.Errorf("port %d, want 2000", again.Port)
		}
		if got := fields(t, store, "offers:web"); got != "2000" {
			t.Errorf("offers of the ports %q, want 2000", got)
		}
	})
}

// An offer's key may outlive its time: a lagging replica, a restored backup, a store whose TTLs stand still.
func TestKeyThatOutlivesItsTimeOpensNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		quick, slow := newAllocator(store, short), newAllocator(store, long)
		mustDefine(t, quick, "web", 2000, 2000)
		old := mustOffer(t, quick, "web", "ann")
		key := quick.keys.Pool(DefaultPool).Offer(old.Secret)
		record := store.Admin.Get(t.Context(), key).Val()
		passes(t, store, short)
		next := mustOffer(t, slow, "web", "bob")

		must(t, store.Admin.Set(t.Context(), key, record, 0).Err())
		opensNothing(t, slow, "web", old.Secret)
		if store.Mini != nil {
			store.Mini.SetTime(old.Created) // the clock was set back: by it the old offer is open still
			opensNothing(t, slow, "web", old.Secret)
		}
		if allocation := mustAccept(t, slow, next); allocation.Name != "bob" || allocation.Port != 2000 {
			t.Errorf("bob has %+v", allocation)
		}
	})
}

// An offer that was accepted and released must not open the next one of the same name, even one made within the same
// millisecond, which differs in the secret alone.
func TestReleasedSecretOpensNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000)
		for range 20 {
			if store.Mini != nil {
				store.Mini.SetTime(time.UnixMilli(1_800_000_000_000))
			}
			old := mustOffer(t, a, "web", "ann")
			mustAccept(t, a, old)
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
			next := mustOffer(t, a, "web", "ann")
			opensNothing(t, a, "web", old.Secret)
			mustReject(t, a, next)
		}
	})
}

func TestSecretOfAnotherService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2001)
		mustDefine(t, a, "db", 3000, 3001)
		offer := mustOffer(t, a, "web", "ann")
		opensNothing(t, a, "db", offer.Secret)
		_, _, err := offerOne(t.Context(), a, DefaultPool, "db", Request{Name: "ann", Secret: offer.Secret}, 0)
		wantError(t, "offer with another's secret", err, ErrInvalid)
		_, _, err = offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "bob", Secret: offer.Secret}, 0)
		wantError(t, "offer to another name", err, ErrInvalid)
		if again, created, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "ann", Secret: offer.Secret}, 0); err != nil || created || again != offer {
			t.Errorf("repeated: %+v, created %v, error %v", again, created, err)
		}
	})
}

func TestKeysOfOffersEnd(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		slow, quick := newAllocator(store, long), newAllocator(store, 30*time.Second)
		mustDefine(t, slow, "web", 2000, 2009)
		for _, test := range []struct {
			what     string
			offer    Offer
			act      func(*testing.T, *Allocator, Offer)
			min, max time.Duration
		}{
			{"open", mustOffer(t, slow, "web", "a"), func(*testing.T, *Allocator, Offer) {}, time.Minute, long},
			{"accepted", mustOffer(t, slow, "web", "b"), func(t *testing.T, a *Allocator, o Offer) { mustAccept(t, a, o) }, 30 * time.Second, time.Minute},
			{"rejected", mustOffer(t, slow, "web", "c"), mustReject, 30 * time.Second, time.Minute},
			{"accepted in its last half minute", mustOffer(t, quick, "web", "d"), func(t *testing.T, a *Allocator, o Offer) { mustAccept(t, a, o) }, 1, 30 * time.Second},
			{"rejected in its last half minute", mustOffer(t, quick, "web", "e"), mustReject, 1, 30 * time.Second},
		} {
			test.act(t, slow, test.offer)
			ttl := store.Admin.PTTL(t.Context(), slow.keys.Pool(DefaultPool).Offer(test.offer.Secret)).Val()
			if ttl < test.min || ttl > test.max {
				t.Errorf("%s: the key lives for %s, want %s to %s", test.what, ttl, test.min, test.max)
			}
		}
	})
}

// A list is the caller's: it is as it was afterwards, and may be used again.
func TestListOfWantsStaysAsItWas(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		wants := []Request{{Name: "ann"}, {Name: "bob"}}
		offers, _, err := a.Offer(t.Context(), Caller{}, DefaultPool, "web", wants, Wait{})
		must(t, err)
		if wants[0] != (Request{Name: "ann"}) || wants[1] != (Request{Name: "bob"}) {
			t.Errorf("%+v", wants)
		}
		for _, offer := range offers {
			mustReject(t, a, offer)
		}
		_, _, err = a.Claim(t.Context(), Caller{}, DefaultPool, "web", wants, Wait{})
		must(t, err)
	})
}
