package allocator

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

func TestFreshRuns(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		offers := []Offer{mustOffer(t, a, "web", "a"), mustOffer(t, a, "web", "b"), mustOffer(t, a, "web", "c")}
		for _, test := range []struct {
			what       string
			start, end int
			fresh      string
		}{
			{"as it was", 2000, 2009, "2003-2009"},
			{"widened down", 1990, 2009, "1990-1999 2003-2009"},
			{"widened up", 1990, 2012, "1990-1999 2003-2012"},
			{"narrowed within its fresh ports", 1998, 2005, "1998-1999 2003-2005"},
			{"narrowed to what was handed out", 2000, 2002, ""},
			{"widened both ways", 1999, 2003, "1999-1999 2003-2003"},
		} {
			mustDefine(t, a, "web", test.start, test.end)
			if got := freshRuns(t, store); got != test.fresh {
				t.Errorf("%s: %q, want %q", test.what, got, test.fresh)
			}
		}
		for _, want := range []int{1999, 2003} {
			if got := mustOffer(t, a, "web", fmt.Sprintf("fresh-%d", want)); got.Port != want {
				t.Errorf("port %d, want %d", got.Port, want)
			}
		}
		_, _, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "late"}, 0)
		wantError(t, "all are taken", err, ErrExhausted)

		// Handed out, given back, and cut off: when the range has it again, it is fresh again.
		mustReject(t, a, offers[0])
		_, _, err = a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2003})
		wantError(t, "1999 is on offer", err, ErrRangeInUse)
	})
}

func TestPortsCutOffLeaveNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, short)
		mustDefine(t, a, "web", 2000, 2004)
		for _, name := range []string{"a", "b", "c", "d"} {
			mustOffer(t, a, "web", name)
		}
		passes(t, store, short)
		mustDefine(t, a, "web", 2001, 2002)
		if names, offers := fields(t, store, "names:web"), fields(t, store, "offers:web"); len(names) != len("b c") || len(offers) != len("2001 2002") {
			t.Errorf("names %q and offers %q, want those of two ports", names, offers)
		}
		mustDefine(t, a, "web", 2000, 2004)
		var ports []int
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			ports = append(ports, mustOffer(t, newAllocator(store, long), "web", name).Port)
		}
		if got := fmt.Sprint(ports); got != "[2001 2002 2000 2003 2004]" {
			t.Errorf("ports %s: those used before come first, then the fresh ones", got)
		}
	})
}

// So many ports are more than one command takes.
func TestManyPortsAreCutOff(t *testing.T) {
	t.Parallel()
	const ports = 3000
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000+ports)
		var offers []Offer
		for len(offers) < ports {
			var some []Request
			for i := range MaxRequests {
				some = append(some, Request{Name: fmt.Sprintf("n%d", len(offers)+i)})
			}
			offered, _, err := a.Offer(t.Context(), Caller{}, DefaultPool, "web", some, Wait{})
			must(t, err)
			offers = append(offers, offered...)
		}
		last := mustAccept(t, a, mustOffer(t, a, "web", "last"))
		if store.Mini != nil {
			passes(t, store, long) // their names stay until they are cut off
		} else {
			for _, offer := range offers {
				mustReject(t, a, offer)
			}
		}

		before := dump(t, store)
		_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2000})
		wantError(t, "the last port is allocated", err, ErrRangeInUse)
		if after := dump(t, store); after != before {
			t.Error("a change that was refused left something")
		}
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", last.Name, Proof{}))
		if s := mustDefine(t, a, "web", 2000, 2000); s.Ports.Free != 1 {
			t.Errorf("%+v", s.Ports)
		}
		k := a.keys.Pool(DefaultPool)
		free := store.Admin.ZCard(t.Context(), k.Free("web")).Val()
		names, held := store.Admin.HLen(t.Context(), k.Names("web")).Val(), store.Admin.HLen(t.Context(), k.Offers("web")).Val()
		if free != 1 || names > 1 || held > 1 {
			t.Errorf("left: %d free ports, %d names, %d offers", free, names, held)
		}
	})
}

func TestRemovedServiceLeavesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		quick, slow := newAllocator(store, short), newAllocator(store, long)
		var old []Offer
		for _, service := range []string{"web", "db"} {
			start := 2000 + 100*len(service)
			mustDefine(t, slow, service, start, start+9)
			released, rejected := mustOffer(t, slow, service, "a"), mustOffer(t, slow, service, "b")
			mustAccept(t, slow, released)
			must(t, slow.Release(t.Context(), Caller{}, DefaultPool, service, "a", Proof{}))
			mustReject(t, slow, rejected)
			ranOut := mustOffer(t, quick, service, "c")
			wantError(t, "an offer is open", slow.Remove(t.Context(), Caller{}, DefaultPool, service), ErrServiceInUse)
			passes(t, store, short)
			must(t, slow.Remove(t.Context(), Caller{}, DefaultPool, service))
			wantError(t, "again", slow.Remove(t.Context(), Caller{}, DefaultPool, service), ErrServiceNotFound)
			old = append(old, released, ranOut)
		}
		for _, key := range allKeys(t, store) {
			if key == store.Prefix+":pools" || key == store.Prefix+":{default}:fence" || key == store.Prefix+":deployment" || key == store.Prefix+":epoch" {
				continue
			}
			if ttl := store.Admin.PTTL(t.Context(), key).Val(); ttl == -1 { // as Redis says it
				t.Errorf("%s is left, and has no TTL", key)
			}
		}
		mustDefine(t, slow, "web", 2300, 2309)
		mustDefine(t, slow, "db", 2200, 2209)
		for _, offer := range old {
			next := mustOffer(t, slow, offer.Service, offer.Name)
			opensNothing(t, slow, offer.Service, offer.Secret)
			mustReject(t, slow, next)
		}
	})
}

// freshRuns returns the runs of ports of the service web that were never handed out.
func freshRuns(t *testing.T, store storetest.Store) string {
	t.Helper()
	var runs []string
	for _, z := range store.Admin.ZRangeWithScores(t.Context(), store.Prefix+":{default}:fresh:web", 0, -1).Val() {
		runs = append(runs, fmt.Sprintf("%.0f-%s", z.Score, z.Member))
	}
	return strings.Join(runs, " ")
}

// allKeys lists the keys of a test.
func allKeys(t *testing.T, store storetest.Store) []string {
	t.Helper()
	keys, err := store.Admin.Keys(t.Context(), store.Prefix+":*").Result()
	must(t, err)
	return keys
}

// dump returns what the keys of the service web hold.
func dump(t *testing.T, store storetest.Store) string {
	t.Helper()
	var text strings.Builder
	for _, key := range []string{"service", "names", "offers", "ports"} {
		fmt.Fprintln(&text, store.Admin.HGetAll(t.Context(), store.Prefix+":{default}:"+key+":web").Val())
	}
	for _, key := range []string{"free", "fresh", "room", "leases", "quarantine"} {
		fmt.Fprintln(&text, store.Admin.ZRangeWithScores(t.Context(), store.Prefix+":{default}:"+key+":web", 0, -1).Val())
	}
	return text.String()
}

// Two operators cut a range at the same time, in steps, while a port that falls out is claimed and released: whatever the order of
// the steps, no port that is held is cut off.
func TestCutInSteps(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 4999)
		claimAll(t, a, "web", 2000, 4999)
		for port := 2300; port <= 4999; port++ { // more are held than are looked at one by one
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", strconv.Itoa(port), Proof{}))
		}
		k := a.keys.Pool(DefaultPool)
		step := func() (any, error) {
			return a.write(t.Context(), k.Call(lua.Define, "web", "", a.withEvents(Caller{}, "web", "", "2000-2299", 0, "1", 100, "", "", "0")...))
		}
		if answer, err := step(); err != nil || answer != int64(0) { // one operator has begun
			t.Fatalf("a step is answered with %v, %v", answer, err)
		}
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "late", Port: new(2400)}, 0)
		must(t, err)
		for i := 0; ; i++ { // both
			if _, err = step(); err != nil || i > 50 {
				break
			}
		}
		wantError(t, "the cut", err, ErrRangeInUse)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "late", Proof{}))
		if s, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2299}); err != nil || s.Ports.Allocated != 300 {
			t.Errorf("%+v, %v", s, err)
		}
		if changing := store.Client.HExists(t.Context(), k.Service("web"), "changing").Val(); changing {
			t.Error("something is left to be done")
		}
	})
}

// claimAll claims each port of a range for a holder of its own.
func claimAll(t *testing.T, a *Allocator, service string, first, last int) {
	t.Helper()
	for from := first; from <= last; from += MaxRequests {
		var wants []Request
		for port := from; port <= min(last, from+MaxRequests-1); port++ {
			wants = append(wants, Request{Name: "holder-" + strconv.Itoa(port)})
		}
		_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, service, wants, Wait{})
		must(t, err)
	}
}

// What is on offer is found by who cuts a range in steps: also the end of a block that begins inside, and an offer that is accepted
// between two steps.
func TestCutInStepsFindsOffers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		claims := func(lease time.Duration) { // more than are looked at one by one, all inside
			for from := 2000; from < 2600; from += MaxRequests {
				var wants []Request
				for port := from; port < from+MaxRequests; port++ {
					wants = append(wants, Request{Name: "holder-" + strconv.Itoa(port), Port: new(port), Lease: optional(lease)})
				}
				_, _, err := a.Claim(t.Context(), Caller{}, DefaultPool, "web", wants, Wait{})
				must(t, err)
				lease = time.Minute // those that end before the offers
			}
		}
		cut := func() (any, error) {
			k := a.keys.Pool(DefaultPool)
			return a.write(t.Context(), k.Call(lua.Define, "web", "", a.withEvents(Caller{}, "web", "", "2000-2699", 0, "1", 100, "", "", "0")...))
		}
		mustDefine(t, a, "web", 2000, 2999)
		mustClaim(t, a, Request{Name: "handed-out", Port: new(2990)})
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "handed-out", Proof{}))
		claims(0)
		offer, _, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "block", Port: new(2698), Count: new(4)}, 0)
		must(t, err)
		for answer := any(int64(0)); err == nil && answer == int64(0); {
			answer, err = cut()
		}
		wantError(t, "a block that reaches out", err, ErrRangeInUse)
		mustReject(t, a, offer)

		offer, _, err = offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "moves", Port: new(2900)}, 0)
		must(t, err)
		for i := range 20 {
			var answer any
			if answer, err = cut(); err != nil || answer != int64(0) {
				break
			}
			if i == 0 {
				mustAccept(t, a, offer)
			}
		}
		wantError(t, "an offer that is accepted meanwhile", err, ErrRangeInUse)
	})
}
