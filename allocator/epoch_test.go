package allocator

import (
	"maps"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/executor"
	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// Mutants that these tests were seen to catch: a state that is gone is taken for a new one; an epoch begun since is taken for the
// old one; a recovered one is not believed; no port is refused; a service is defined in an emptied store.

func TestStateThatIsGoneIsNotBuiltUpon(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		old, other, newer := newAllocator(store, long), newAllocator(store, long), newAllocator(store, long)
		mustDefine(t, old, "web", 2000, 2009)
		offer := mustOffer(t, old, "web", "ann")
		wantProblems(t, old)
		wantProblems(t, other)

		for _, key := range allKeys(t, store) {
			must(t, store.Admin.Del(t.Context(), key).Err())
		}
		wantError(t, "a release, before anybody has noticed", old.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}), ErrUnavailable)
		for _, key := range allKeys(t, store) {
			must(t, store.Admin.Del(t.Context(), key).Err())
		}
		wantProblems(t, newer) // a server that has just started believes that it is the first, and begins an epoch
		_, _, err := old.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2009})
		wantError(t, "a service", err, ErrUnavailable)
		wantProblems(t, old, StateLost)
		wantProblems(t, other, StateLost)
		wantProblems(t, newer, StateLost) // as the others found out
		wantProblems(t, newAllocator(store, long), StateLost)
		for _, a := range []*Allocator{old, other, newer} {
			_, _, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "bob"}, 0)
			wantError(t, "an offer", err, ErrUnavailable)
			_, _, err = a.Accept(t.Context(), Caller{}, DefaultPool, "web", offer.Secret, nil)
			wantError(t, "an acceptance", err, ErrUnavailable)
			_, err = a.Renew(t.Context(), Caller{}, DefaultPool, "web", "ann", offer.Secret, new(MinLease))
			wantError(t, "a renewal", err, ErrUnavailable)
			wantError(t, "a release", a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{Secret: offer.Secret}), ErrUnavailable)
			_, err = a.Reject(t.Context(), Caller{}, DefaultPool, "web", offer.Secret, false)
			wantError(t, "a rejection", err, ErrUnavailable)
			_, err = a.Allocation(t.Context(), DefaultPool, "web", "ann")
			wantError(t, "a look at an allocation", err, ErrUnavailable)
			_, err = a.OpenOffer(t.Context(), Caller{}, DefaultPool, "web", offer.Secret)
			wantError(t, "a look at an offer", err, ErrUnavailable)
			_, err = a.Service(t.Context(), DefaultPool, "web")
			wantError(t, "a look at a service", err, ErrUnavailable)
			wantError(t, "a removal", a.Remove(t.Context(), Caller{}, DefaultPool, "web"), ErrUnavailable)
		}

		for i, needed := range []bool{true, false} {
			if was, err := other.Recover(t.Context()); err != nil || was.Needed != needed {
				t.Errorf("recovered the %d. time: needed %v, %v", i+1, was.Needed, err)
			}
		}
		for _, a := range []*Allocator{old, other, newer} {
			wantProblems(t, a)
			mustDefine(t, a, "web", 2000, 2009)
		}
		mustOffer(t, newer, "web", "bob")
	})
}

// What is recovered is one state. Another one that was recovered, too, does not count for it.
func TestRecoverAcceptsOneState(t *testing.T) {
	epochs, servers := []map[string]string{}, []*Allocator{}
	for range 2 {
		store := storetest.Mini(t)
		a := newAllocator(store, long)
		wantProblems(t, a)
		healthy := readEpoch(t, a)
		if found, err := a.Recover(t.Context()); err != nil || found.Needed || readEpoch(t, a)["id"] != healthy["id"] {
			t.Errorf("if nothing was lost it is needed %v, %v, and changes the epoch", found.Needed, err)
		}
		must(t, store.Admin.Del(t.Context(), a.keys.Epoch()).Err())
		wantProblems(t, a, StateLost)
		if found, err := a.Recover(t.Context()); err != nil || !found.Needed {
			t.Errorf("needed %v, %v", found.Needed, err)
		}
		wantProblems(t, a)
		recovered := readEpoch(t, a) // by one of two who looked at the lost one at a time
		answer, err := a.executor.WriteUnconfirmed(t.Context(), executor.Call{
			Slot: a.keys.Epoch(), Script: lua.Recover, Keys: []string{a.keys.Epoch()}, Args: []any{healthy["id"], "other"},
		})
		if err != nil || answer != int64(0) || !maps.Equal(readEpoch(t, a), recovered) {
			t.Errorf("recovered twice: %v, %v", answer, err)
		}
		epochs, servers = append(epochs, readEpoch(t, a)), append(servers, a)
	}
	for i, a := range servers {
		writeEpoch(t, a, epochs[1-i])
		wantProblems(t, a, StateLost)
	}
}

// A state can be recovered although Redis is full, and how long the fence of a pool without services lasts stays as it is.
func TestRecoverOnAFullRedis(t *testing.T) {
	store := storetest.Open(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2009)
	given := mustClaim(t, a, Request{Name: "ann"})
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
	must(t, a.Remove(t.Context(), Caller{}, DefaultPool, "web"))
	must(t, store.Admin.HSet(t.Context(), a.keys.Epoch(), "state", "lost").Err())
	wantProblems(t, a, StateLost)
	setMaxMemory(t, store, 1)
	if found, err := a.Recover(t.Context()); err != nil || !found.Needed {
		t.Errorf("needed %v, %v", found.Needed, err)
	}
	setMaxMemory(t, store, 0)
	wantProblems(t, a)
	fence := a.keys.Pool(DefaultPool).Fence()
	if raised, _ := store.Admin.Get(t.Context(), fence).Int64(); raised <= given.Fence {
		t.Errorf("the fence is %d, after %d", raised, given.Fence)
	}
	if left := store.Admin.PTTL(t.Context(), fence).Val(); left < time.Hour || left > 2*time.Hour {
		t.Errorf("the fence lasts %v", left)
	}
}

// A backup brings back the epoch of then, and nobody has said that it counts.
func TestStateOfAnotherEpochIsNoticed(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	wantProblems(t, a)
	backup := readEpoch(t, a)
	must(t, store.Admin.Del(t.Context(), a.keys.Epoch()).Err())
	wantProblems(t, a, StateLost)
	if _, err := a.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, a)
	writeEpoch(t, a, backup)
	wantProblems(t, a, StateLost)
}

// looks lets a server look at the state so often, a second apart.
func looks(t *testing.T, store storetest.Store, a *Allocator, times int) {
	t.Helper()
	for range times {
		passes(t, store, 1100*time.Millisecond)
		if _, err := a.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A state that is older than what was acknowledged is built upon if it is by a little, and lost if it is by more, or by anything
// with replicas that must have each change. However far it is, no server gives a fence twice.
func TestOlderStateIsNoticed(t *testing.T) {
	for name, test := range map[string]struct {
		rollback time.Duration // how far it may be
		replicas int
		seconds  int // that it is thrown back
		claims   bool
		lost     bool
	}{
		"by little":                         {10 * time.Second, 0, 2, true, false},
		"by less than a pulse":              {10 * time.Second, 0, 0, true, false},
		"by more":                           {time.Second, 0, 4, true, true},
		"by more, and nobody claims":        {time.Second, 0, 4, false, true},
		"by anything, with replicas":        {time.Hour, 1, 0, true, true},
		"by anything, if nothing may be so": {0, 0, 2, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			store := storetest.Mini(t)
			open := func() *Allocator {
				return New(store.Client, Options{KeyPrefix: store.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151,
					Timeout: 5 * time.Second, MaxRollback: test.rollback})
			}
			a, idle := open(), open()
			mustDefine(t, a, "web", 2000, 2009)
			claim := func(name string) (Allocation, error) {
				allocation, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: name}, 0)
				return allocation, err
			}
			_, err := claim("before")
			must(t, err)
			looks(t, store, a, 3)
			looks(t, store, idle, 3)
			backup := snapshot(t, store)
			lost, err := claim("after")
			must(t, err)
			looks(t, store, a, test.seconds)
			a.epoch.Options.Replicas = test.replicas // a miniredis has no replicas: what they have is as above
			restore(t, store, backup)

			newer := open()
			wantProblems(t, newer) // it has seen nothing of what is gone
			if !test.claims {
				wantProblems(t, a, StateLost)
			}
			next, err := claim("next")
			if !test.lost {
				must(t, err)
				if next.Port != lost.Port || next.Fence <= lost.Fence {
					t.Errorf("%+v has fence %d after %+v", next, next.Fence, lost)
				}
				if got := a.StateFigures(); got.Rollbacks != 1 || got.Behind > time.Duration(test.seconds+2)*1100*time.Millisecond {
					t.Errorf("noticed %+v", got)
				}
				wantProblems(t, a)
				wantProblems(t, newer)
				return
			}
			wantError(t, "a claim", err, ErrUnavailable)
			_, err = a.Renew(t.Context(), Caller{}, DefaultPool, "web", "after", lost.Secret, new(MinLease))
			wantError(t, "a renewal of what is not known", err, ErrUnavailable)
			wantError(t, "a release of what is not known", a.Release(t.Context(), Caller{}, DefaultPool, "web", "after", Proof{}), ErrUnavailable)
			for _, server := range []*Allocator{a, idle, newer, open()} {
				wantProblems(t, server, StateLost)
				_, _, err := claimOne(t.Context(), server, DefaultPool, "web", Request{Name: "other"}, 0)
				wantError(t, "a claim", err, ErrUnavailable)
			}

			found, err := newer.Recover(t.Context())
			if err != nil || !found.Needed || !found.Known || found.Unknown != 1 || len(found.Held) != 1 || found.Held[0].Ports.Allocated != 1 {
				t.Errorf("it found %+v, %v", found, err)
			}
			for _, server := range []*Allocator{a, idle, newer, open()} {
				wantProblems(t, server)
			}
			next, _, err = claimOne(t.Context(), idle, DefaultPool, "web", Request{Name: "next"}, 0)
			if must(t, err); next.Port != lost.Port || next.Fence <= lost.Fence {
				t.Errorf("%+v follows %+v", next, lost)
			}
		})
	}
}

// A server that was away looks among the pulses for the one that it saw, so a state that others have built upon since does not
// deceive it.
func TestOlderStateIsNoticedLate(t *testing.T) {
	store := storetest.Mini(t)
	a, other := newAllocator(store, long), newAllocator(store, long)
	looks(t, store, a, 2)
	looks(t, store, other, 3)
	backup := snapshot(t, store)
	looks(t, store, a, 3)
	restore(t, store, backup)
	passes(t, store, 10*time.Second)
	newer := newAllocator(store, long)
	looks(t, store, newer, 5)
	wantProblems(t, newer)
	wantProblems(t, a, StateLost)
	wantProblems(t, other, StateLost)
}

// A server that never saw what is lost gives a higher fence nevertheless, although Redis' clock went back as well and the pool of what
// is lost is in no copy: the others report the highest that they know.
func TestFencesOutliveStateAndClock(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	looks(t, store, a, 3)
	backup := snapshot(t, store)
	claim := func(a *Allocator) Allocation {
		_, _, err := a.Define(t.Context(), Caller{}, "young", Definition{Name: "web", Start: 2000, End: 2009})
		must(t, err)
		allocation, _, err := claimOne(t.Context(), a, "young", "web", Request{Name: "ann"}, 0)
		must(t, err)
		return allocation
	}
	lost := claim(a)
	looks(t, store, a, 1)
	restore(t, store, backup)
	store.Mini.SetTime(storeTime(t, store).Add(-time.Hour))
	wantProblems(t, a, StateLost)
	newer := newAllocator(store, long)
	if _, err := newer.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next := claim(newer); next.Fence <= lost.Fence {
		t.Errorf("%+v has fence %d after %+v", next, next.Fence, lost)
	}
}

// A newer server's state is neither read nor changed. When it is as before, all goes on.
func TestNewerSchemaIsLeftAlone(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		offer := mustOffer(t, a, "web", "ann")
		must(t, store.Admin.HSet(t.Context(), a.keys.Epoch(), "schema", "2").Err())
		before := snapshot(t, store)
		wantProblems(t, a, OtherSchema)
		for _, server := range []*Allocator{a, newAllocator(store, long)} {
			_, _, err := server.Accept(t.Context(), Caller{}, DefaultPool, "web", offer.Secret, nil)
			wantError(t, "an acceptance", err, ErrUnavailable)
			_, err = server.Reject(t.Context(), Caller{}, DefaultPool, "web", offer.Secret, true)
			wantError(t, "a rejection", err, ErrUnavailable)
			_, err = server.Service(t.Context(), DefaultPool, "web")
			wantError(t, "a look at a service", err, ErrUnavailable)
			_, _, err = server.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "db", Start: 3000, End: 3009})
			wantError(t, "a service", err, ErrUnavailable)
			_, err = server.Recover(t.Context())
			wantError(t, "to recover", err, ErrUnavailable)
			if err == nil || !strings.Contains(err.Error(), "schema 2") {
				t.Errorf("it does not say why: %v", err)
			}
		}
		if after := snapshot(t, store); !reflect.DeepEqual(before, after) {
			t.Errorf("it was changed from %q to %q", before, after)
		}
		must(t, store.Admin.HSet(t.Context(), a.keys.Epoch(), "schema", 1).Err())
		wantProblems(t, a)
		mustAccept(t, a, offer)
	})
}

// The state of servers before there were numbers is converted by the first server that finds it, and locks them out.
func TestSchemaZeroIsConverted(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2999)
		held := mustAccept(t, a, mustOffer(t, a, "web", "ann"))
		k := a.keys.Pool(DefaultPool)
		now := storeTime(t, store).UnixMilli()
		admin, ctx := store.Admin, t.Context()
		for port := 2001; port <= 2600; port++ { // as the servers of then kept out what was in use
			for _, key := range []string{k.Free("web"), string(k) + "quarantine:web"} {
				must(t, admin.ZAdd(ctx, key, redis.Z{Score: float64(now + 60_000), Member: strconv.Itoa(port)}).Err())
			}
		}
		must(t, admin.ZRem(ctx, k.Fresh("web"), "2999").Err())
		must(t, admin.ZAdd(ctx, k.Fresh("web"), redis.Z{Score: 2601, Member: "2999"}).Err())
		must(t, admin.ZAdd(ctx, k.Waitlist("web"), redis.Z{Score: 1, Member: "0123-1/1"}).Err())
		must(t, admin.HSet(ctx, k.Service("web"), "waiting", "1").Err())
		must(t, admin.ZAdd(ctx, string(k)+"beats:web", redis.Z{Score: float64(now), Member: "0123-1/1"}).Err())
		must(t, admin.Del(ctx, a.keys.Epoch()).Err())
		must(t, admin.Set(ctx, a.keys.Deployment(), `{"id":"x","since":1,"state":"kept"}`, 0).Err())

		newer, another := newAllocator(store, long), newAllocator(store, long)
		var both sync.WaitGroup
		for _, server := range []*Allocator{newer, another} {
			both.Go(func() { wantProblems(t, server) })
		}
		both.Wait()
		if old := admin.Get(ctx, a.keys.Deployment()).Val(); !strings.HasPrefix(old, `{"id":"schema-1"`) {
			t.Errorf("the old epoch is %q", old)
		}
		s, err := newer.Service(ctx, DefaultPool, "web")
		must(t, err)
		if s.Ports.Allocated != 1 || s.Ports.Cooling != 600 || s.Ports.Offered != 0 || s.Waiting != 0 || s.Ports.Free != 399 {
			t.Errorf("it counts %+v, %d waiting", s.Ports, s.Waiting)
		}
		for _, key := range []string{"quarantine:web", "beats:web", "line:web"} {
			if admin.Exists(ctx, string(k)+key).Val() != 0 {
				t.Errorf("%s is left", key)
			}
		}
		if next := mustOffer(t, another, "web", "bob"); next.Port != 2601 {
			t.Errorf("port %d is offered", next.Port)
		}
		must(t, newer.Release(ctx, Caller{}, DefaultPool, "web", "ann", Proof{Fences: []int64{held.Fence}}))
		if store.Mini != nil { // it takes a minute elsewhere
			passes(t, store, 61*time.Second)
			s, err := newer.Service(ctx, DefaultPool, "web")
			if must(t, err); s.Ports.Cooling != 0 || s.Ports.Free != 999 {
				t.Errorf("when their time is over it counts %+v", s.Ports)
			}
		}
	})
}

func readEpoch(t *testing.T, a *Allocator) map[string]string {
	t.Helper()
	answer, _ := command(t, a, "hgetall", a.keys.Epoch()).([]any)
	fields := map[string]string{}
	for i := 0; i < len(answer); i += 2 {
		fields[answer[i].(string)] = answer[i+1].(string)
	}
	return fields
}

func writeEpoch(t *testing.T, a *Allocator, fields map[string]string) {
	t.Helper()
	must(t, a.executor.Unlink(t.Context(), a.keys.Epoch()))
	for field, value := range fields {
		command(t, a, "hset", a.keys.Epoch(), field, value)
	}
}
