package allocator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// Many bring and remove the only services of the same pools, on several servers at once.
func TestPoolIsListedWhileItHasAService(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		const clients, rounds = 12, 40
		pools := []string{"a", "b", "c"}
		var running sync.WaitGroup
		for client := range clients {
			a := newAllocator(store, long)
			running.Go(func() {
				service := fmt.Sprint("s", client)
				for range rounds {
					pool := pools[rand.IntN(len(pools))]
					d := Definition{Name: service, Start: 2000, End: 2000 + rand.IntN(2)} // they overlap, so that many fail
					if _, err := a.Create(t.Context(), Caller{}, pool, d); err == nil && rand.IntN(10) > 0 {
						must(t, a.Remove(t.Context(), Caller{}, pool, service))
					}
				}
				for _, pool := range pools[1:] { // so that in the end some have one and some have none
					_ = a.Remove(t.Context(), Caller{}, pool, service)
				}
			})
		}
		running.Wait()
		a := newAllocator(store, long)
		if _, _, err := a.Define(t.Context(), Caller{}, "a", Definition{Name: "last", Start: 3000, End: 3000}); err != nil {
			t.Fatal(err)
		}
		for _, pool := range pools {
			has := store.Admin.ZCard(t.Context(), a.keys.Pool(pool).Services()).Val() > 0
			if listed := store.Admin.SIsMember(t.Context(), a.keys.Pools(), pool).Val(); listed != has {
				t.Errorf("pool %s: listed %v, has a service %v", pool, listed, has)
			}
		}
	})
}

// A service is brought, and another server takes the pool out of the list, of which it saw just before that it was empty.
func TestPoolIsUnlistedBeforeItsServiceIsThere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		other := newAllocator(store, long)
		client := redis.NewClient(store.Options())
		t.Cleanup(func() { client.Close() })
		client.AddHook(before{lua.Define, func() { other.unlist(t.Context(), DefaultPool) }})
		store.Client = client
		mustDefine(t, newAllocator(store, long), "web", 2000, 2009)
		if !store.Admin.SIsMember(t.Context(), other.keys.Pools(), DefaultPool).Val() {
			t.Error("the pool has a service, and is not listed")
		}
	})
}

// before does something before a script is sent.
type before struct {
	script *lua.Script
	do     func()
}

func (before) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (before) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (b before) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		if slices.ContainsFunc(commands, func(c redis.Cmder) bool { return slices.Contains(c.Args(), any(b.script.Hash)) }) {
			b.do()
		}
		return next(ctx, commands)
	}
}

// A call comes between the two steps of another one.
func TestListOfPoolsMendsItself(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		listed := func() string {
			t.Helper()
			names, err := store.Admin.SMembers(t.Context(), a.keys.Pools()).Result()
			must(t, err)
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		check := func(what, want string) {
			t.Helper()
			if got := listed(); got != want {
				t.Errorf("%s: listed are %q, want %q", what, got, want)
			}
		}
		define := func(pool string) {
			t.Helper()
			_, _, err := a.Define(t.Context(), Caller{}, pool, Definition{Name: "web", Start: 2000, End: 2009})
			must(t, err)
		}
		define("full")
		a.unlist(t.Context(), "full")
		check("unlisted while a service was brought", "full")
		a.relist(t.Context(), "empty")
		check("listed while the last service was removed", "full")

		must(t, store.Admin.SAdd(t.Context(), a.keys.Pools(), "left", "over").Err()) // by servers that were killed
		pools, next, err := a.Pools(t.Context(), nil, "", 1)
		if err != nil || next != "" || len(pools) != 1 || pools[0] != (Pool{"full", 1}) {
			t.Errorf("%+v, next %q, %v", pools, next, err)
		}
		check("after a list", "full")
		must(t, store.Admin.SAdd(t.Context(), a.keys.Pools(), "left").Err())
		if figures, unread, err := a.AllFigures(t.Context()); err != nil || unread != 0 || len(figures) != 1 {
			t.Errorf("%+v, %d unread, %v", figures, unread, err)
		}
		check("after a reading of all figures", "full")

		must(t, store.Admin.SRem(t.Context(), a.keys.Pools(), "full").Err())
		define("full")
		check("defined again", "full")
		_, _, err = a.Define(t.Context(), Caller{}, "full", Definition{Name: "other", Start: 2009, End: 2010})
		wantError(t, "it overlaps", err, ErrRangeOverlap)
		check("after a definition that failed", "full")
		_, _, err = a.Define(t.Context(), Caller{}, "new", Definition{Name: "other", Start: 2009, End: 2010})
		must(t, err)
		must(t, a.Remove(t.Context(), Caller{}, "new", "other"))
		options := a.opts
		options.MaxServices = -1
		_, _, err = New(store.Client, options).Define(t.Context(), Caller{}, "new", Definition{Name: "web", Start: 2000, End: 2009})
		wantError(t, "it may have no service", err, ErrLimitReached)
		check("after a definition that failed in a new pool", "full")
		must(t, a.Remove(t.Context(), Caller{}, "full", "web"))
		check("the last is removed", "")
	})
}

func TestLimits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := New(store.Client, Options{KeyPrefix: store.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: newAllocator(store, long).opts.Timeout,
			MaxServices: 2, MaxPools: 2})
		define := func(pool, service string, start int) error {
			_, _, err := a.Define(t.Context(), Caller{}, pool, Definition{Name: service, Start: start, End: start + 9})
			return err
		}
		must(t, define("one", "web", 2000))
		must(t, define("one", "db", 3000))
		wantError(t, "a third service", define("one", "mail", 4000), ErrLimitReached)
		must(t, define("one", "db", 4000)) // one that is there may change
		must(t, define("two", "web", 2000))
		for range 3 {
			wantError(t, "a third pool", define("three", "web", 2000), ErrLimitReached)
		}
		must(t, define("two", "db", 3000)) // one that is there may grow
		must(t, a.Remove(t.Context(), Caller{}, "two", "web"))
		must(t, a.Remove(t.Context(), Caller{}, "two", "db"))
		must(t, define("three", "web", 2000))
		must(t, a.Remove(t.Context(), Caller{}, "one", "db"))
		must(t, define("one", "mail", 4000))
	})
}
