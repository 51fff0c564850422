package allocator

import (
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// existing is a request for what a name has already, or else a port.
func existing(name string) Request { return Request{Name: name, Existing: true} }

// A claim that takes what exists gets the allocation as it is, without its secret, whoever has it; and changes nothing.
func TestExisting(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2003)
		first, created, err := claimOne(ctx, a, DefaultPool, "web", existing("ann"), 0)
		if must(t, err); !created || first.Secret == "" {
			t.Fatalf("%+v is not new", first)
		}
		renewed, err := a.Renew(ctx, Caller{}, DefaultPool, "web", "ann", first.Secret, new(time.Hour))
		must(t, err)
		for what, r := range map[string]Request{
			"plain":               existing("ann"),
			"another secret":      {Name: "ann", Existing: true, Secret: "2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f5"},
			"another port":        {Name: "ann", Existing: true, Port: new(2001)},
			"a port of no range":  {Name: "ann", Existing: true, Port: new(3000)},
			"a block":             {Name: "ann", Existing: true, Count: new(3)},
			"labels and a lease":  {Name: "ann", Existing: true, Labels: job, Lease: new(time.Minute)},
			"more than there are": {Name: "ann", Existing: true, Count: new(50)},
		} {
			got, _, err := a.Claim(ctx, Caller{Owner: "bob", Held: 1}, DefaultPool, "web", []Request{r}, Wait{})
			if must(t, err); got[0] != renewed {
				t.Errorf("%s: %+v, want %+v", what, got[0], renewed)
			}
			if _, created, _ := claimOne(ctx, a, DefaultPool, "web", r, time.Second); created {
				t.Errorf("%s: it is new", what)
			}
		}
		// The secret of the allocation is still that of a repeated call.
		again, created, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: "ann", Existing: true, Secret: first.Secret}, 0)
		if must(t, err); created || again.Secret != first.Secret || again.Expires != renewed.Expires {
			t.Errorf("repeated: %+v, created: %v", again, created)
		}
		_, _, err = claimOne(ctx, a, DefaultPool, "web", Request{Name: "ann", Existing: true, Secret: first.Secret, Port: new(2001)}, 0)
		wantError(t, "a repeated call with another port", err, ErrInvalid)

		// What was released does not exist.
		must(t, a.Release(ctx, Caller{}, DefaultPool, "web", "ann", Proof{Secret: first.Secret}))
		next, created, err := claimOne(ctx, a, DefaultPool, "web", existing("ann"), 0)
		if must(t, err); !created || next.Secret == "" || next.Fence <= first.Fence {
			t.Errorf("after the release: %+v, created: %v", next, created)
		}
		_, _, err = offerOne(ctx, a, DefaultPool, "web", existing("bob"), 0)
		wantError(t, "an offer", err, ErrInvalid)
		mustOffer(t, a, "web", "cy")
		_, _, err = claimOne(ctx, a, DefaultPool, "web", existing("cy"), 0)
		wantError(t, "what is on offer", err, ErrNameTaken)
	})
}

// A list gets what exists and the rest anew, or nothing; of the ports that exist none counts.
func TestExistingInAList(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2001)
		ann, _, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: "ann", Labels: job}, 0)
		must(t, err)
		list := []Request{existing("bob"), existing("ann")}
		got, created, err := a.Claim(ctx, Caller{Owner: "o", Held: 1}, DefaultPool, "web", list, Wait{})
		must(t, err)
		if secret := ann.Secret; !created || got[0].Secret == "" || got[0].Port != 2001 || got[1].Secret != "" {
			t.Errorf("%+v beside %s", got, secret)
		}
		ann.Secret = ""
		if got[1] != ann {
			t.Errorf("%+v, want %+v", got[1], ann)
		}
		if got, created, err = a.Claim(ctx, Caller{}, DefaultPool, "web", list, Wait{}); err != nil || created || got[0].Secret+got[1].Secret != "" {
			t.Errorf("%+v %v %v", got, created, err)
		}
		_, _, err = a.Claim(ctx, Caller{}, DefaultPool, "web", append(list, existing("cy")), Wait{})
		wantError(t, "no port for the third", err, ErrExhausted)
	})
}

// Of two calls that wait under one name, the first gets the port that comes free, and the other gets what the first has.
func TestExistingWhileWaiting(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000)
		mustClaim(t, a, Request{Name: "ann"})
		ended := make(chan got, 2)
		for range 2 {
			wait(t.Context(), t, a, existing("bob"), ended)
		}
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
		var both []got
		for range 2 {
			select {
			case one := <-ended:
				both = append(both, one)
			case <-time.After(20 * time.Second):
				t.Fatal("a call waits although its name has a port")
			}
		}
		first, second := both[0], both[1]
		must(t, first.err)
		must(t, second.err)
		if first.allocation.Secret == "" || second.allocation.Secret != "" || first.allocation.Fence != second.allocation.Fence {
			t.Errorf("%+v and %+v", first.allocation, second.allocation)
		}
		waits(t, a, 0)
	})
}

// A client that hangs up before it is told of an existing allocation ends nothing of it.
func TestExistingStaysWhenItsReaderHangsUp(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000)
		ann := mustClaim(t, a, existing("ann"))
		asked := 0
		gone := func() bool { asked++; return asked > 1 }
		_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "web", []Request{existing("ann")}, Wait{Longest: time.Second, Abandoned: gone})
		wantError(t, "a client that is gone", err, ErrUnavailable)
		still, err := a.Allocation(t.Context(), DefaultPool, "web", "ann")
		if must(t, err); still.Fence != ann.Fence {
			t.Errorf("%+v, want %+v", still, ann)
		}
	})
}
