package allocator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// Mutants that these tests were seen to catch: a holder's script without its first change (accept, reject, renew, settle), a
// newcomer's without unless_full (take, define), the key for replicas set by a SET.

// act is a call, and what has to be there before. Each has a service of its own, with ports 2000 to 2199 of a pool of its own.
type act struct {
	before func(t *testing.T, a *Allocator, pool string) (secret string)
	call   func(ctx context.Context, a *Allocator, pool, secret string) error
}

// The services of these tests have 200 ports.
func memoryService(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	_, _, err := a.Define(t.Context(), pool, Definition{Name: "web", Start: 2000, End: 2199})
	must(t, err)
}

func offerOf(t *testing.T, a *Allocator, pool string, w Request) (secret string) {
	t.Helper()
	offer, _, err := offerOne(t.Context(), a, pool, "web", w, 0)
	must(t, err)
	return offer.Secret
}

func claimOf(t *testing.T, a *Allocator, pool string, w Request) (secret string) {
	t.Helper()
	allocation, _, err := claimOne(t.Context(), a, pool, "web", w, 0)
	must(t, err)
	return allocation.Secret
}

func claimAct(want Request, before func(t *testing.T, a *Allocator, pool string)) act {
	return act{
		func(t *testing.T, a *Allocator, pool string) string {
			if before != nil {
				before(t, a, pool)
			}
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := claimOne(ctx, a, pool, "web", want, 0)
			return err
		},
	}
}

func defineAct(d Definition, before func(t *testing.T, a *Allocator, pool string)) act {
	found := claimAct(Request{}, before)
	found.call = func(ctx context.Context, a *Allocator, pool, _ string) error {
		_, _, _, err := a.defineOnce(ctx, pool, d, true) // the script, which goes behind that of the list of pools
		return err
	}
	return found
}

// inPieces leaves every other port given back, and all others of the first 100 held.
func inPieces(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	for port := 2000; port < 2100; port++ {
		claimOf(t, a, pool, Request{Name: "p" + strconv.Itoa(port), Port: new(port)})
	}
	for port := 2000; port < 2100; port += 2 {
		must(t, a.Release(t.Context(), pool, "web", "p"+strconv.Itoa(port), Proof{}))
	}
}

// givenBack leaves all ports given back, and so in no run.
func givenBack(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	for i := range 2 {
		secret := claimOf(t, a, pool, Request{Name: "all-" + strconv.Itoa(i), Count: new(100)})
		must(t, a.Release(t.Context(), pool, "web", "all-"+strconv.Itoa(i), Proof{Secret: secret}))
	}
}

func hundred(lease time.Duration) (wants []Request) {
	for i := range 100 {
		wants = append(wants, Request{Name: fmt.Sprintf("n-%d", i), Lease: optional(lease), Count: new(1 + i%2)})
	}
	return wants
}

// Who comes: refused before anything is changed.
var newcomers = map[string]act{
	"a claim of a fresh port":  claimAct(Request{Name: "ann"}, nil),
	"a claim with a lease":     claimAct(Request{Name: "ann", Lease: new(time.Hour)}, nil),
	"a claim of a port before": claimAct(Request{Name: "ann"}, inPieces),
	"a claim of a block":       claimAct(Request{Name: "ann", Count: new(10)}, givenBack),
	"a claim of a port":        claimAct(Request{Name: "ann", Port: new(2002)}, inPieces),
	"a claim after a lease": claimAct(Request{Name: "ann", Port: new(2003)}, func(t *testing.T, a *Allocator, pool string) {
		claimOf(t, a, pool, Request{Name: "bob", Port: new(2001), Count: new(5), Lease: new(MinLease)})
		time.Sleep(MinLease + 20*time.Millisecond)
	}),
	"a claim after a rest": claimAct(Request{Name: "ann"}, func(t *testing.T, a *Allocator, pool string) {
		_, err := a.Reject(t.Context(), pool, "web", offerOf(t, a, pool, Request{Name: "bob"}), true)
		must(t, err)
		time.Sleep(2 * quarantine)
	}),
	"a claim of many": {
		func(t *testing.T, a *Allocator, pool string) string { givenBack(t, a, pool); return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := a.Claim(ctx, pool, "web", hundred(time.Hour), Wait{})
			return err
		},
	},
	"an offer": {
		func(*testing.T, *Allocator, string) string { return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := offerOne(ctx, a, pool, "web", Request{Name: "ann"}, 0)
			return err
		},
	},
	"an offer of many": {
		func(t *testing.T, a *Allocator, pool string) string { inPieces(t, a, pool); return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := a.Offer(ctx, pool, "web", hundred(0), Wait{})
			return err
		},
	},
	"a position": {
		func(t *testing.T, a *Allocator, pool string) string {
			claimOf(t, a, pool, Request{Name: "bob", Count: new(100)})
			claimOf(t, a, pool, Request{Name: "carl", Count: new(100)})
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := claimOne(ctx, a, pool, "web", Request{Name: "ann"}, time.Second)
			return err
		},
	},
	"a new pool": {
		func(*testing.T, *Allocator, string) string { return "" },
		func(ctx context.Context, a *Allocator, _, _ string) error {
			_, _, err := a.Define(ctx, "new", Definition{Name: "web", Start: 2000, End: 2199})
			return err
		},
	},
	"a new service":         defineAct(Definition{Name: "db", Start: 3000, End: 3099}, nil),
	"another description":   defineAct(Definition{Name: "web", Description: "new", Start: 2000, End: 2199}, nil),
	"a range that grows":    defineAct(Definition{Name: "web", Start: 2000, End: 2299}, givenBack),
	"a range that is cut":   defineAct(Definition{Name: "web", Start: 2100, End: 2199}, givenBack),
	"a shorter cool-down":   defineAct(Definition{Name: "web", Start: 2000, End: 2199}, coolsDown),
	"a cut of what is held": defineAct(Definition{Name: "web", Start: 2000, End: 2009}, givenBack),
}

func coolsDown(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	_, _, err := a.Define(t.Context(), pool, Definition{Name: "web", Start: 2000, End: 2199, Cooldown: time.Hour})
	must(t, err)
	inPieces(t, a, pool)
}

func holderAct(before func(t *testing.T, a *Allocator, pool string) string, call func(ctx context.Context, a *Allocator, pool, secret string) error) act {
	return act{before, call}
}

// Who holds: all goes through.
var holders = map[string]act{
	"accept": acceptAct(Request{Name: "ann"}, 0),
	"accept shortly before its end": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			opts := a.opts
			opts.OfferTTL = 30 * time.Second
			return offerOf(t, anew(a, opts), pool, Request{Name: "ann"})
		},
		acceptAct(Request{}, 0).call),
	"accept for a lease":     acceptAct(Request{Name: "ann"}, time.Hour),
	"accept a leased block":  acceptAct(Request{Name: "ann", Count: new(100), Lease: new(time.Hour)}, 0),
	"accept a block":         acceptAct(Request{Name: "ann", Count: new(100)}, 0),
	"renew":                  renewAct(Request{Name: "ann", Lease: new(time.Hour)}),
	"renew what has none":    renewAct(Request{Name: "ann"}),
	"renew a block":          renewAct(Request{Name: "ann", Lease: new(time.Hour), Count: new(100)}),
	"release":                releaseAct(Request{Name: "ann"}, false),
	"release with a secret":  releaseAct(Request{Name: "ann"}, true),
	"release a lease":        releaseAct(Request{Name: "ann", Lease: new(time.Hour)}, false),
	"release a leased block": releaseAct(Request{Name: "ann", Lease: new(time.Hour), Count: new(100)}, true),
	"reject":                 rejectAct(Request{Name: "ann"}, false),
	"reject a block":         rejectAct(Request{Name: "ann", Count: new(100)}, false),
	"reject as in use":       rejectAct(Request{Name: "ann"}, true),
	"settle": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			_, err := a.Reject(t.Context(), pool, "web", offerOf(t, a, pool, Request{Name: "bob"}), true)
			must(t, err)
			time.Sleep(2 * quarantine)
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			return a.settle(ctx, a.keys.Pool(pool), "web")
		}),
	"settle a range that grew": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			claimOf(t, a, pool, Request{Name: "last", Port: new(2199)}) // so that what is added joins no run
			command(t, a, "hset", a.keys.Pool(pool).Service("web"), "end", 2299, "changing", "add 2200 2299")
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			return a.settle(ctx, a.keys.Pool(pool), "web")
		}),
	"remove": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			coolsDown(t, a, pool)
			for port := 2001; port < 2100; port += 2 {
				must(t, a.Release(t.Context(), pool, "web", "p"+strconv.Itoa(port), Proof{}))
			}
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error { return a.Remove(ctx, pool, "web") }),
}

func acceptAct(want Request, lease time.Duration) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return offerOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, _, err := a.Accept(ctx, pool, "web", secret, optional(lease))
			return err
		})
}

func renewAct(want Request) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return claimOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, err := a.Renew(ctx, pool, "web", "ann", secret, new(time.Hour))
			return err
		})
}

func releaseAct(want Request, proves bool) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return claimOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			if !proves {
				secret = ""
			}
			return a.Release(ctx, pool, "web", "ann", Proof{Secret: secret})
		})
}

func rejectAct(want Request, inUse bool) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return offerOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, err := a.Reject(ctx, pool, "web", secret, inUse)
			return err
		})
}

// setMaxMemory limits the memory of a Redis, or does not, where it is 0.
func setMaxMemory(t *testing.T, store storetest.Store, bytes int64) {
	t.Helper()
	must(t, store.Admin.ConfigSet(t.Context(), "maxmemory", strconv.FormatInt(bytes, 10)).Err())
}

func usedMemory(t *testing.T, store storetest.Store) int64 {
	t.Helper()
	says, err := store.Admin.InfoMap(t.Context(), "memory").Result()
	must(t, err)
	used, err := strconv.ParseInt(says["Memory"]["used_memory"], 10, 64)
	must(t, err)
	return used
}

// everything returns what the keys of a pool hold.
func everything(t *testing.T, store storetest.Store, pool string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range allKeys(t, store) {
		if strings.Contains(key, "{"+pool+"}") {
			all[key] = contents(t, store, key)
		}
	}
	return all
}

func contents(t *testing.T, store storetest.Store, key string) string {
	t.Helper()
	switch kind := store.Admin.Type(t.Context(), key).Val(); kind {
	case "hash":
		return fmt.Sprint(store.Admin.HGetAll(t.Context(), key).Val())
	case "zset":
		return fmt.Sprint(store.Admin.ZRangeWithScores(t.Context(), key, 0, -1).Val())
	case "string":
		return store.Admin.Get(t.Context(), key).Val()
	default:
		t.Fatalf("%s is a %s", key, kind)
		return ""
	}
}

// differing returns the keys that have something else in two pools.
func differing(got, want map[string]string) (keys []string) {
	for key := range want {
		if got[key] != want[key] {
			keys = append(keys, key)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// isRefused checks that a newcomer was told that Redis is full.
func isRefused(t *testing.T, what string, err error) {
	t.Helper()
	failed, ok := errors.AsType[*Error](err)
	if !ok || failed.Code != CodeUnavailable || !strings.HasPrefix(failed.Detail, "Redis is full") {
		t.Errorf("%s: %v", what, err)
	}
}

func TestHoldersGoBeforeNewcomersWhenRedisIsFull(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	run := func(what string, act act, full func(pool, secret string)) {
		t.Run(what, func(t *testing.T) {
			pool := strings.ReplaceAll(what, " ", "-")
			memoryService(t, a, pool)
			secret := act.before(t, a, pool)
			setMaxMemory(t, store, 1)
			defer setMaxMemory(t, store, 0)
			full(pool, secret)
			contradictions(t, store, a, pool, "web")
			if _, err := a.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	for what, newcomer := range newcomers {
		run(what, newcomer, func(pool, secret string) {
			before := everything(t, store, pool)
			isRefused(t, what, newcomer.call(t.Context(), a, pool, secret))
			if changed := differing(everything(t, store, pool), before); len(changed) > 0 {
				t.Errorf("%s was refused, and has changed %v", what, changed)
			}
		})
	}
	for what, holder := range holders {
		run(what, holder, func(pool, secret string) {
			if err := holder.call(t.Context(), a, pool, secret); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
}

// TestNoScriptIsHalfWrittenWhenMemoryRunsOut lets the memory run out just before, in the midst of, and just after each act.
func TestNoScriptIsHalfWrittenWhenMemoryRunsOut(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	acts := maps.Clone(newcomers)
	maps.Copy(acts, holders)
	done, refused := 0, 0
	for what, act := range acts {
		if what == "a claim after a lease" { // a second for each
			continue
		}
		_, isNewcomer := newcomers[what]
		for i, above := range []int64{-2000, 0, 500, 2000, 8000, 20_000, 60_000} {
			pool := strings.ReplaceAll(what, " ", "-") + "-" + strconv.Itoa(i)
			memoryService(t, a, pool)
			secret := act.before(t, a, pool)
			before := everything(t, store, pool)
			setMaxMemory(t, store, usedMemory(t, store)+above)
			err := act.call(t.Context(), a, pool, secret)
			setMaxMemory(t, store, 0)
			changed := differing(everything(t, store, pool), before)
			must(t, a.settle(t.Context(), a.keys.Pool(pool), "web")) // what a change of the range has left to be done
			contradictions(t, store, a, pool, "web")
			switch {
			case err == nil, what == "a position" && errors.Is(err, ErrExhausted):
				done++
			case isNewcomer:
				refused++
				isRefused(t, what, err)
				ofSeveral := what == "a position" || strings.HasPrefix(what, "a range") // scripts, of which the first may be done
				if !ofSeveral && len(changed) > 0 {
					t.Errorf("%s, with %d bytes: it was refused, and has changed %v", what, above, changed)
				}
			default:
				t.Errorf("%s, with %d bytes: %v", what, above, err)
			}
		}
	}
	if done < 100 || refused < 20 {
		t.Errorf("%d were done and %d refused: the memory ran out elsewhere", done, refused)
	}
}

// contradictions finds what the keys of a service say against each other.
func contradictions(t *testing.T, store storetest.Store, a *Allocator, pool, service string) {
	t.Helper()
	ctx, k, db := t.Context(), a.keys.Pool(pool), store.Admin
	about := db.HGetAll(ctx, k.Service(service)).Val()
	if len(about) == 0 {
		return
	}
	start, _ := strconv.Atoi(about["start"])
	end, _ := strconv.Atoi(about["end"])
	in := map[int]string{}
	put := func(port int, what string) {
		if in[port] != "" || port < start || port > end {
			t.Errorf("%s of %s, %d-%d: port %d is %s, and %q", service, pool, start, end, port, what, in[port])
		}
		in[port] = what
	}
	for _, run := range db.ZRangeWithScores(ctx, k.Fresh(service), 0, -1).Val() {
		last, _ := strconv.Atoi(run.Member.(string))
		for port := int(run.Score); port <= last; port++ {
			put(port, "fresh")
		}
		if length := db.ZScore(ctx, k.RunLengths(service), run.Member.(string)).Val(); float64(last)-run.Score+1 > max(length, 1) {
			t.Errorf("room has a run of %v up to %d, which begins at %v", length, last, run.Score)
		}
	}
	free, leases, ports := scores(db.ZRangeWithScores(ctx, k.Free(service), 0, -1)), scores(db.ZRangeWithScores(ctx, k.Leases(service), 0, -1)), db.HGetAll(ctx, k.Ports(service)).Val()
	offers, names := db.HGetAll(ctx, k.Offers(service)).Val(), db.HGetAll(ctx, k.Names(service)).Val()
	for port := range free {
		n, _ := strconv.Atoi(port)
		put(n, "free")
	}
	for port := range scores(db.ZRangeWithScores(ctx, k.Resting(service), 0, -1)) {
		n, _ := strconv.Atoi(port)
		put(n, "resting")
	}
	for port, lease := range leases {
		if free[port] != lease || ports[port] == "" || offers[port] != "leased" {
			t.Errorf("%s: port %s is leased until %d, free from %d, and held as %q", pool, port, lease, free[port], ports[port])
		}
	}
	type holding struct {
		Name    string
		Port    int
		Expires int64
	}
	var held holding
	read := func(port, text string) {
		if strings.HasPrefix(text, "{") {
			held = holding{}
			if err := json.Unmarshal([]byte(text), &held); err != nil || strconv.Itoa(held.Port) != port || names[held.Name] != port {
				t.Errorf("%s: port %s has %s, and the name port %s; %v", pool, port, text, names[held.Name], err)
			}
		}
	}
	for port, text := range ports {
		if n, _ := strconv.Atoi(port); leases[port] == 0 {
			put(n, "held")
		}
		read(port, text)
	}
	for port, text := range offers {
		if read(port, text); text != "leased" && int64(free[port]) != held.Expires {
			t.Errorf("%s: port %s is on offer until %d, and free from %d", pool, port, held.Expires, free[port])
		}
	}
	for name, port := range names {
		if offers[port] == "" && ports[port] == "" {
			t.Errorf("%s: %s has port %s, which nobody holds", pool, name, port)
		}
	}
	if len(in) != end-start+1 {
		t.Errorf("%s of %s: %d ports of %d are in some key", service, pool, len(in), end-start+1)
	}
}
