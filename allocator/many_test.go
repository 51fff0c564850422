package allocator

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// What a script of several calls leaves undone, as that of renewals does with blocks, each call does by itself.
func TestManyLeaveTheRest(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2199)
		const calls = 40
		var held [calls]Allocation
		for i := range held {
			held[i] = mustClaim(t, a, Request{Name: fmt.Sprint("n", i), Count: new(2)})
		}
		var running sync.WaitGroup
		for i, h := range held {
			running.Go(func() {
				if renewed, err := a.Renew(t.Context(), Caller{}, DefaultPool, "web", h.Name, h.Secret, new(time.Hour)); err != nil || renewed.Port != h.Port {
					t.Errorf("renewal %d: %v, %v", i, renewed, err)
				}
			})
		}
		running.Wait()
	})
}

// A script of several calls leaves all of them to the single one where the service asks for more.
func TestManyLeaveSomeServices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		define := func(d Definition) {
			d.Name, d.Start, d.End = "web", 2000, 2009
			_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, d)
			must(t, err)
		}
		left := func(state string, calls ...executor.Call) {
			for i, r := range a.executor.RunAll(t.Context(), calls, len(calls)) {
				if r != (executor.Result{Answer: longWay}) {
					t.Errorf("%s: call %d: %v", state, i, r)
				}
			}
		}
		define(Definition{})
		rejects, renewals := make([]executor.Call, 2), make([]executor.Call, 2)
		for i := range 2 {
			rejects[i] = a.rejectCall(Caller{}, DefaultPool, "web", mustOffer(t, a, "web", fmt.Sprint("offered", i)).Secret, false)
			held := mustClaim(t, a, Request{Name: fmt.Sprint("held", i)})
			renewals[i] = a.renewCall(Caller{}, DefaultPool, "web", held.Name, held.Secret, new(time.Hour))
		}
		define(Definition{Pick: PickByName})
		left("a service that picks by name", rejects...)
		define(Definition{})
		waiting := []Request{{Name: "waits", Secret: "s", Count: new(9)}}
		_, err := a.try(t.Context(), acquisition{pool: DefaultPool, service: "web", requests: waiting, script: lua.Claim}, ticketOf("one", 1, waiting), true)
		must(t, err)
		left("a call waits", rejects...)
		left("a call waits", renewals...)
	})
}

// Where a script of several calls fails after its first change, what became of those that change something is unknown, and the answers of
// the others stand; one that fails before has changed nothing. A key of another type brings it about.
func TestManyHalfWritten(t *testing.T) {
	alone, ann := Caller{}, Caller{Owner: "ann"}
	acquire := func(a *Allocator, caller Caller, script *lua.Script, name string) executor.Call {
		call, _ := a.plainCall(acquisition{caller: caller, pool: DefaultPool, service: "web", requests: []Request{{Name: name, Secret: name}}, script: script})
		return call
	}
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		for name, test := range map[string]struct {
			breaks func(keyspace.Pool) string // this key
			want   string
			calls  func(a *Allocator) (changes, changesNothing executor.Call)
		}{
			"offer before": {func(k keyspace.Pool) string { return k.Free("web") }, "WRONGTYPE", func(a *Allocator) (executor.Call, executor.Call) {
				return acquire(a, alone, lua.Offer, "bob"), acquire(a, alone, lua.Offer, "taken")
			}},
			"offer": {func(k keyspace.Pool) string { return k.Owned("ann") }, "HALF_WRITTEN", func(a *Allocator) (executor.Call, executor.Call) {
				return acquire(a, ann, lua.Offer, "bob"), acquire(a, ann, lua.Offer, "taken")
			}},
			"claim": {keyspace.Pool.Fence, "HALF_WRITTEN", func(a *Allocator) (executor.Call, executor.Call) {
				return acquire(a, alone, lua.Claim, "bob"), acquire(a, alone, lua.Claim, "taken")
			}},
			"accept": {func(k keyspace.Pool) string { return k.Free("web") }, "HALF_WRITTEN", func(a *Allocator) (executor.Call, executor.Call) {
				offer := mustOffer(t, a, "web", "cem")
				return a.plainAccept(alone, DefaultPool, "web", offer.Secret), a.plainAccept(alone, DefaultPool, "web", "nobody's")
			}},
			"reject": {func(k keyspace.Pool) string { return k.Free("web") }, "HALF_WRITTEN", func(a *Allocator) (executor.Call, executor.Call) {
				offer := mustOffer(t, a, "web", "eve")
				return a.rejectCall(alone, DefaultPool, "web", offer.Secret, false), a.rejectCall(alone, DefaultPool, "web", "nobody's", false)
			}},
			"renew": {func(k keyspace.Pool) string { return k.Leases("web") }, "HALF_WRITTEN", func(a *Allocator) (executor.Call, executor.Call) {
				offer := mustOffer(t, a, "web", "flo")
				mustAccept(t, a, offer)
				return a.renewCall(alone, DefaultPool, "web", "flo", offer.Secret, new(time.Minute)),
					a.renewCall(alone, DefaultPool, "web", "nobody", offer.Secret, nil)
			}},
			"release": {func(k keyspace.Pool) string { return k.Free("web") }, "HALF_WRITTEN", func(a *Allocator) (executor.Call, executor.Call) {
				mustAccept(t, a, mustOffer(t, a, "web", "dan"))
				return a.plainRelease(alone, DefaultPool, "web", Proof{}.which("dan")), a.plainRelease(alone, DefaultPool, "web", Proof{}.which("nobody"))
			}},
		} {
			a := newAllocator(store, long)
			mustDefine(t, a, "web", 2000, 2009)
			mustOffer(t, a, "web", "taken")
			changes, changesNothing := test.calls(a)
			key := test.breaks(a.keys.Pool(DefaultPool))
			must(t, store.Admin.Del(t.Context(), key).Err())
			must(t, store.Admin.HSet(t.Context(), key, "a", "b").Err())
			results := a.executor.RunAll(t.Context(), []executor.Call{changesNothing, changes}, 2)
			if got := fmt.Sprint(results[1].Err); !strings.Contains(got, test.want) {
				t.Errorf("%s: %v, want %s", name, got, test.want)
			}
			if half := test.want == "HALF_WRITTEN"; half && results[0] != (executor.Result{Answer: longWay}) || !half && results[0].Err == nil {
				t.Errorf("%s: beside it: %v", name, results[0])
			}
			must(t, store.Admin.Del(t.Context(), allKeys(t, store)...).Err())
		}
	})
}
