package allocator

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"testing"

	"portmaster/allocator/storetest"
)

// commandsOf counts the commands that a Redis runs meanwhile, those of its clients' own doing left out.
func commandsOf(t *testing.T, store storetest.Store, do func()) map[string]int {
	t.Helper()
	must(t, store.Admin.ConfigResetStat(t.Context()).Err())
	do()
	text, err := store.Admin.Info(t.Context(), "commandstats").Result()
	must(t, err)
	counts := map[string]int{}
	for _, line := range regexp.MustCompile(`cmdstat_(\w+):calls=(\d+)`).FindAllStringSubmatch(text, -1) {
		counts[line[1]], _ = strconv.Atoi(line[2])
	}
	for _, other := range []string{"auth", "hello", "info", "config"} {
		delete(counts, other)
	}
	return counts
}

// What most calls cost: these commands and no others. Of an offer, HMGET is there for what is seldom: a cool-down, a
// line; and so is EXISTS of a release.
func TestCommandsOfTheCycle(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2000)
	mustReject(t, a, mustOffer(t, a, "web", "ann")) // so that the port is no fresh one, and the scripts are loaded
	mustAccept(t, a, mustOffer(t, a, "web", "ann"))
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))

	var offer Offer
	for _, test := range []struct {
		act  string
		do   func()
		want map[string]int
	}{
		{"offer", func() { offer = mustOffer(t, a, "web", "ann") },
			map[string]int{"evalsha": 1, "time": 1, "hmget": 1, "zrangebyscore": 1, "hsetnx": 2, "zadd": 1, "set": 1}},
		{"accept", func() { mustAccept(t, a, offer) },
			map[string]int{"evalsha": 1, "time": 1, "get": 1, "hget": 1, "zrem": 1, "hdel": 1, "hset": 1, "set": 1, "pexpire": 1}},
		{"release", func() { must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{})) },
			map[string]int{"evalsha": 1, "time": 1, "hget": 2, "hdel": 2, "zadd": 1, "exists": 1}},
	} {
		if got := commandsOf(t, store, test.do); !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.act, got, test.want)
		}
	}
}

// What a history adds: a command to each call that is an event, and none to others.
func TestCommandsOfEvents(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := withHistory(store, long, 100)
	mustDefine(t, a, "web", 2000, 2000)
	var offer Offer
	for _, test := range []struct {
		act  string
		do   func()
		adds int
	}{
		{"reject", func() { mustReject(t, a, mustOffer(t, a, "web", "ann")) }, 0},
		{"offer", func() { offer = mustOffer(t, a, "web", "ann") }, 0},
		{"accept", func() { mustAccept(t, a, offer) }, 1},
		{"read", func() { _, _ = a.Allocation(t.Context(), DefaultPool, "web", "ann") }, 0},
		{"release", func() { must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{})) }, 1},
	} {
		if got := commandsOf(t, store, test.do); got["xadd"] != test.adds {
			t.Errorf("%s: %v, want %d events", test.act, got, test.adds)
		}
	}
}

// What an owner adds: its ports are counted if it has a quota, and noted, and its key is told when to end.
func TestCommandsOfOwners(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2000)
	var offer Offer
	cycle := func(t *testing.T, caller Caller) (counts [3]map[string]int) {
		t.Helper()
		counts[0] = commandsOf(t, store, func() { offer = offerAs(t, a, caller, Request{Name: "ann"}) })
		counts[1] = commandsOf(t, store, func() {
			_, _, err := a.Accept(t.Context(), caller, DefaultPool, "web", offer.Secret, nil)
			must(t, err)
		})
		counts[2] = commandsOf(t, store, func() { must(t, a.Release(t.Context(), caller, DefaultPool, "web", "ann", Proof{})) })
		return counts
	}
	cycle(t, Caller{})
	cycle(t, bob) // loads the scripts
	plain := cycle(t, Caller{})
	for name, caller := range map[string]Caller{"an owner": bob, "an owner with a quota": ann} {
		counted := map[string]int{"zadd": 1, "zrangebyscore": 1, "zrange": 1, "pexpire": 1}
		want := [3]map[string]int{maps.Clone(counted), counted, {"zrem": 1, "zrange": 1}}
		if caller.Held > 0 {
			want[0]["zcount"] = 1
		}
		got := cycle(t, caller)
		for i, act := range []string{"offer", "accept", "release"} {
			for command, n := range plain[i] {
				want[i][command] += n
			}
			if !maps.Equal(got[i], want[i]) {
				t.Errorf("%s of %s: %v, want %v", act, name, got[i], want[i])
			}
		}
	}
}

// A search for a block never looks at the whole range: one script gathers 100 ports that were given back, and each of them
// is gathered once.
func TestCommandsOfABlock(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	const first, ports, pieces = 10_000, 4_000, 4
	mustDefine(t, a, "web", first, first+ports-1)
	for i := range ports / MaxRequests {
		wants := make([]Request, MaxRequests)
		for j := range wants {
			wants[j].Name = fmt.Sprintf("holder-%d", first+i*MaxRequests+j)
		}
		_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "web", wants, Wait{})
		must(t, err)
	}
	given := 0
	for port := first; port < first+ports; port++ {
		if port%pieces != 0 { // three in a row, then one that is held
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", strconv.Itoa(port), Proof{}))
			given++
		}
	}
	claim := func(name string) error {
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: name, Count: new(pieces)}, 0)
		return err
	}
	var err error
	counts := commandsOf(t, store, func() { err = claim("early") })
	wantError(t, "no piece is long enough", err, ErrExhausted)
	t.Logf("the first search: %v", counts)
	if want := given/100 + 1; counts["evalsha"] != want {
		t.Errorf("the first search took %d scripts, want %d", counts["evalsha"], want)
	}

	const perScript = 20 // commands, of one that finds its block and of one that does not
	for name, want := range map[string]*Error{"none": ErrExhausted, "some": nil} {
		if want == nil {
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", strconv.Itoa(first+2_000), Proof{}))
		}
		counts = commandsOf(t, store, func() { err = claim(name) })
		total := 0
		for _, n := range counts {
			total += n
		}
		t.Logf("%s: %d scripts, %d commands: %v", name, counts["evalsha"], total, counts)
		if (err != nil) != (want != nil) || counts["evalsha"] != 1 || total > perScript+2*3*pieces {
			t.Errorf("%s: %v, in %d scripts and %d commands", name, err, counts["evalsha"], total)
		}
	}
}

// Blocks of a list are all found, however many ports have to be gathered for them, and whichever of them is the first to search.
func TestBlocksOfAListAreGathered(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 10_000, 10_255)
		wants := []Request{{Name: "a", Count: new(100)}, {Name: "b", Count: new(100)}, {Name: "c", Count: new(56)}}
		for range 3 {
			_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "web", wants, Wait{})
			must(t, err)
			for _, w := range wants {
				must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", w.Name, Proof{}))
			}
		}
	})
}
