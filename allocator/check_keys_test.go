package allocator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// The ports of the service that TestCheckKeys breaks.
const (
	lasting    = "2000" // ann's
	leasedPort = "2001" // ben's, with 2002 and 2003
	offered    = "2004" // cat's
	onOffer    = "2005" // dan's, with 2006
	returned   = "2007"
	kept       = "2008" // rejected as in use
	unused     = "2100" // fresh
)

// Each index is broken in each way; what is found is told, repaired if nobody's claim is touched, and no more found then.
func TestCheckKeys(t *testing.T) {
	far := fmt.Sprint(time.Now().Add(1000 * time.Hour).UnixMilli())
	type change []any
	for _, test := range []struct {
		what     string
		changes  []change // commands: name, key, arguments
		found    string   // codes of what is found; behind a "/" those that are found where it is repaired at once
		repaired bool
	}{
		{"a port of a holder is free", []change{{"ZADD", "free:web", 1, lasting}}, "held_and_free", true},
		{"a port of a holder is fresh", []change{{"ZADD", "fresh:web", lasting, lasting}}, "held_and_fresh", true},
		{"a port of a holder rests", []change{{"ZADD", "resting:web", far, lasting}}, "held_and_resting", true},
		{"a port on offer is fresh", []change{{"ZADD", "fresh:web", offered, offered}}, "held_and_fresh", true},
		{"a port of a block on offer rests", []change{{"ZADD", "resting:web", far, "2006"}}, "held_and_resting", true},
		{"a lasting allocation is marked as leased", []change{{"HSET", "offers:web", lasting, "leased"}}, "lease_of_nobody", true},
		{"a lasting allocation has the end of a lease", []change{{"ZADD", "leases:web", far, lasting}}, "lease_of_nobody", true},
		{"two have a port", []change{{"HSET", "offers:web", lasting, `{"service":"web","name":"eve","port":2000,"created":1,"expires":` + far + `,"secret":"e"}`}}, "two_holders", false},
		{"a lease has lost its end", []change{{"ZREM", "leases:web", "2002"}}, "lease_entries", true},
		{"a lease has lost the end of its port", []change{{"ZADD", "free:web", 1, leasedPort}}, "lease_entries", true},
		{"a lease has lost its mark", []change{{"HDEL", "offers:web", "2003"}}, "lease_entries", true},
		{"an offered port is free", []change{{"ZADD", "free:web", 1, offered}}, "offer_entries", true},
		{"a port of a block on offer is free", []change{{"ZADD", "free:web", 1, "2006"}}, "offer_entries", true},
		{"the key of an offer is gone", []change{{"UNLINK", "offer:SECRET"}}, "offer_key", false},
		{"the key of an offer is another's", []change{{"SET", "offer:SECRET", "{}"}}, "offer_key", false},
		{"a name is gone", []change{{"HDEL", "names:web", "ann"}}, "name_missing", true},
		{"a name has another port", []change{{"HSET", "names:web", "ann", offered}}, "name_elsewhere name_of_nobody/name_missing name_of_nobody", true},
		{"a name has a port that nobody has", []change{{"HSET", "names:web", "eve", unused}}, "name_of_nobody", true},
		{"a port of a block does not lead to it", []change{{"HDEL", "ports:web", "2002"}}, "block_entry", true},
		{"a port of a block leads elsewhere", []change{{"HSET", "ports:web", "2002", lasting}}, "block_entry", true},
		{"two have a port of a block", []change{{"HSET", "ports:web", "2002", `{"name":"eve","port":2002,"created":1,"fence":1,"secret":"e"}`}}, "two_holders", false},
		{"a port of a block that is gone", []change{{"HSET", "ports:web", unused, "2090"}}, "block_of_nobody", true},
		{"a port beyond its block", []change{{"HSET", "ports:web", "2100", leasedPort}}, "block_of_nobody", true},
		{"a mark of a lease that is gone", []change{{"HSET", "offers:web", unused, "leased"}}, "lease_of_nobody", true},
		{"an end of a lease that is gone", []change{{"ZADD", "leases:web", far, unused}}, "lease_of_nobody", true},
		{"a port is in no key", []change{{"ZREM", "free:web", returned}}, "lost", true},
		{"a port is kept for nobody", []change{{"ZADD", "free:web", far, returned}}, "kept_for_nobody", true},
		{"a port is given back and fresh", []change{{"ZADD", "fresh:web", returned, returned}}, "free_and_fresh", true},
		{"a port rests and is free", []change{{"ZADD", "free:web", 1, kept}}, "free_and_resting", true},
		{"a port rests and is fresh", []change{{"ZADD", "fresh:web", kept, kept}}, "free_and_resting", true},
		{"a rest is forgotten", []change{{"HSET", "rest", unused, far}}, "rest_forgotten", true},
		{"a rest is known to the service alone", []change{{"HDEL", "rest", kept}}, "rest_unnoted", true},
		{"a rest that nobody ends", []change{{"HDEL", "service:web", "rests"}}, "rest_unwatched", true},
		{"two runs overlap", []change{{"ZADD", "fresh:web", "2200", "2210"}}, "runs_overlap", true},
		{"a run ends before it begins", []change{{"ZADD", "fresh:web", "2290", "2280"}}, "run_backwards", true},
		{"a length of no run, which a block's search clears", []change{{"ZADD", "room:web", 7, "2200"}}, "", true},
		{"a run whose length is not known", []change{{"DEL", "room:web"}}, "run_length", true},
		{"a run that is thought shorter", []change{{"ZADD", "room:web", 2, "2299"}}, "run_length", true},
		{"ports of no service", []change{{"ZADD", "free:web", 1, "999"}, {"ZADD", "leases:web", far, "3000"}, {"ZADD", "resting:web", far, "x"},
			{"HSET", "offers:web", "999", "leased"}, {"HSET", "ports:web", "3000", "999"}}, "outside outside outside outside outside", true},
		{"a run beyond the range", []change{{"ZREM", "fresh:web", "2299"}, {"ZADD", "fresh:web", "2015", "2400"}}, "outside", true},
		{"a holder beyond the range", []change{{"HSET", "ports:web", "3000", `{"name":"eve","port":3000,"created":1,"fence":1,"secret":"e"}`}}, "outside", false},
		{"a record that cannot be read", []change{{"HSET", "ports:web", lasting, `{"name":"ann"}`}}, "labels_of_nobody malformed", false},
		{"the start of the range is another's", []change{{"ZADD", "services", "1999", "web"}}, "range", false},
		{"the end of the range is not known", []change{{"ZREM", "ends", "web"}}, "range", false},
		{"a service that is listed and gone", []change{{"ZADD", "services", "4000", "gone"}}, "service_missing", true},
		{"calls are thought to wait", []change{{"HSET", "service:web", "waiting", "1"}}, "waitlist_empty", true},
		{"calls wait unknown", []change{{"ZADD", "line:web", 1, "server-1/1/1"}}, "waitlist_unknown waitlist_unwatched", true},
		{"an owner lacks what it holds", []change{{"ZREM", "owner:own", "2010"}, {"ZREM", "owner:own", "2012"}, {"ZREM", "owner:own", "2014"}}, "owner_entry owner_entry owner_entry", true},
		{"an owner holds a port for too short", []change{{"ZADD", "owner:own", far, "2010"}}, "owner_entry", true},
		{"an owner has ports of others", []change{{"ZADD", "owner:own", far, lasting}, {"ZADD", "owner:own", far, "2006"}, {"ZADD", "owner:own", far, unused}}, "owner_of_nothing owner_of_nothing owner_of_nothing", true},
		{"an owner has ports of no service", []change{{"ZADD", "owner:own", far, "4000"}, {"ZADD", "owner:own", far, "999"}}, "outside outside", true},
		{"an owner had ports once", []change{{"ZADD", "owner:own", 1, lasting}, {"ZADD", "owner:own", 1, unused}}, "", true},
		{"an owner's key is gone", []change{{"DEL", "owner:own"}}, "owner_entry owner_entry owner_entry owner_entry owner_entry", true},
		{"labels of nobody", []change{{"HSET", "labels:web", unused, `{"secret":"e","labels":{"a":"1"}}`}}, "labels_of_nobody", true},
		{"labels of an earlier holder", []change{{"HSET", "labels:web", "2000", `{"secret":"e","labels":{"a":"1"}}`}}, "labels_of_nobody", true},
		{"labels that cannot be read", []change{{"HSET", "labels:web", "2000", `{"secret"`}}, "labels_of_nobody", true},
		{"a last holder that no one asks for", []change{{"HSET", "last:web", lasting, "0 ann"}}, "last_of_nothing", true},
		{"a ticket that cannot be read", []change{{"ZADD", "line:web", 1, "ticket"}}, "ticket waitlist_unknown waitlist_unwatched", true},
	} {
		t.Run(test.what, func(t *testing.T) {
			storetest.Each(t, func(t *testing.T, store storetest.Store) {
				a := New(store.Client, Options{KeyPrefix: store.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151,
					Timeout: 5 * time.Second, Quarantine: long})
				secret := fill(t, a)
				wantFound(t, a, true, "")
				for _, c := range test.changes {
					command := slices.Clone(c)
					command[1] = store.Prefix + ":{default}:" + strings.Replace(fmt.Sprint(c[1]), "SECRET", secret, 1)
					must(t, store.Admin.Do(t.Context(), command...).Err())
				}
				before := recordsOfHolders(t, store)
				found, repairing, differs := strings.Cut(test.found, "/")
				if !differs {
					repairing = found
				}
				wantFound(t, a, false, found)
				wantFound(t, a, true, repairing)
				if after := recordsOfHolders(t, store); !reflect.DeepEqual(before, after) {
					t.Errorf("holders were %v, and are %v", before, after)
				}
				if test.repaired {
					wantFound(t, a, false, "")
				}
			})
		})
	}
}

// fill brings a service into each state that ports can be in, and returns the secret of an offer.
func fill(t *testing.T, a *Allocator) (secret string) {
	t.Helper()
	_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2299, Cooldown: time.Minute})
	must(t, err)
	mustClaim(t, a, Request{Name: "ann", Port: new(2000), Labels: job})
	mustClaim(t, a, Request{Name: "ben", Port: new(2001), Count: new(3), Lease: new(long)})
	offer, _, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "cat", Port: new(2004), Labels: job}, 0)
	must(t, err)
	_, _, err = offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "dan", Port: new(2005), Count: new(2)}, 0)
	must(t, err)
	own := Caller{Owner: "own"}
	claimAs(t, a, own, Request{Name: "own-1", Port: new(2010)})
	claimAs(t, a, own, Request{Name: "own-2", Port: new(2011), Count: new(2), Lease: new(long)})
	offerAs(t, a, own, Request{Name: "own-3", Port: new(2013), Count: new(2)})
	gone := mustClaim(t, a, Request{Name: "eve", Port: new(2007)})
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "eve", Proof{Secret: gone.Secret}))
	busy, _, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "fay", Port: new(2008)}, 0)
	must(t, err)
	_, err = a.Reject(t.Context(), Caller{}, DefaultPool, "web", busy.Secret, true)
	must(t, err)
	return offer.Secret
}

// wantFound wants to find these codes; if it is to repair, all that can be repaired is.
func wantFound(t *testing.T, a *Allocator, repair bool, want string) {
	t.Helper()
	found, err := check(t.Context(), a, repair)
	must(t, err)
	var codes []string
	for _, each := range found {
		codes = append(codes, each.Code)
	}
	slices.Sort(codes)
	if got := strings.Join(codes, " "); got != want {
		t.Errorf("repair %v: found %q, want %q: %+v", repair, got, want, found)
	}
}

func check(ctx context.Context, a *Allocator, repair bool) (found []Inconsistency, err error) {
	err = a.CheckKeys(ctx, DefaultPool, repair, func(one Inconsistency) { found = append(found, one) })
	return found, err
}

// checkFindsNothing checks some times, while others work.
func checkFindsNothing(t *testing.T, a *Allocator, times int) {
	t.Helper()
	for range times {
		found, err := check(t.Context(), a, true)
		if err != nil || len(found) > 0 {
			t.Errorf("found %+v, error %v", found, err)
			return
		}
	}
}

// recordsOfHolders are the records of all holders.
func recordsOfHolders(t *testing.T, store storetest.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range []string{"ports:web", "offers:web"} {
		records, err := store.Admin.HGetAll(t.Context(), store.Prefix+":{default}:"+key).Result()
		must(t, err)
		for port, record := range records {
			if strings.HasPrefix(record, "{") {
				all[key+" "+port] = record
			}
		}
	}
	return all
}

// While servers hand out, lease, and give back ports, and ranges change, nothing is found, and so nothing is repaired.
func TestCheckKeysUnderLoad(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, 20*time.Millisecond)
		_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2399, Cooldown: 10 * time.Millisecond})
		must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for i := range 6 {
			clients.Go(func() { liveOn(ctx, a, uint64(i)) })
		}
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, _, _ = a.Define(ctx, Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2399 + n%3*100, Cooldown: time.Duration(n%2) * 10 * time.Millisecond})
			}
		})
		checkFindsNothing(t, a, 25)
		stop()
		clients.Wait()
		if n, err := a.executor.Fields(t.Context(), a.keys.Pool(DefaultPool).Ports("web"), "2000"); err != nil || len(n) != 1 {
			t.Error(n, err)
		}
	})
}

// liveOn makes calls of all kinds until ctx ends.
func liveOn(ctx context.Context, a *Allocator, seed uint64) {
	draw := rand.New(rand.NewPCG(seed, 1))
	for n := 0; ctx.Err() == nil; n++ {
		r := Request{Name: fmt.Sprintf("n%d-%d", seed, n%20), Count: new(1 + draw.IntN(3))}
		if draw.IntN(3) == 0 {
			r.Labels = job
		}
		if draw.IntN(3) > 0 {
			r.Lease = new(15 * time.Millisecond)
		}
		callers := []Caller{nobody, {Owner: "own"}, {Owner: "own", Held: 20}, operator}
		caller, other := callers[draw.IntN(len(callers))], callers[draw.IntN(len(callers))]
		if draw.IntN(2) == 0 {
			all, _, err := a.Claim(ctx, caller, DefaultPool, "web", []Request{r}, Wait{})
			if err != nil {
				continue
			}
			held := all[0]
			if draw.IntN(4) > 0 {
				_ = a.Release(ctx, other, DefaultPool, "web", strconv.Itoa(held.Port), Proof{Secret: held.Secret})
			} else if r.Lease != nil {
				_, _ = a.Renew(ctx, other, DefaultPool, "web", held.Name, held.Secret, new(20*time.Millisecond))
			}
			continue
		}
		all, _, err := a.Offer(ctx, caller, DefaultPool, "web", []Request{r}, Wait{})
		if err != nil {
			continue
		}
		if offer := all[0]; draw.IntN(3) > 0 {
			_, _, _ = a.Accept(ctx, other, DefaultPool, "web", offer.Secret, nil)
		} else {
			_, _ = a.Reject(ctx, other, DefaultPool, "web", offer.Secret, draw.IntN(2) == 0)
		}
		if draw.IntN(10) == 0 {
			_ = a.Release(ctx, other, DefaultPool, "web", r.Name, Proof{})
		}
	}
}
