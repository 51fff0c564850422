package allocator

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

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
	case "stream":
		return fmt.Sprint(store.Admin.XRange(t.Context(), key, "-", "+").Val())
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
	t.Parallel()
	store, _, _ := storetest.Private(t)
	a := withHistory(store, long, 1000)
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
			before := len(eventsOf(t, store, pool, "web"))
			if err := holder.call(t.Context(), a, pool, secret); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if act, _, _ := strings.Cut(what, " "); act == "accept" || act == "release" || act == "remove" {
				if len(eventsOf(t, store, pool, "web")) == before {
					t.Errorf("%s is no event", what)
				}
			}
		})
	}
}

// TestNoScriptIsHalfWrittenWhenMemoryRunsOut lets the memory run out just before, in the midst of, and just after each act.
func TestNoScriptIsHalfWrittenWhenMemoryRunsOut(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	a := withHistory(store, long, 1000)
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
