package allocator

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// The callers of these tests, of whom the first has a quota.
var (
	ann      = Caller{Owner: "gitlab:17/ci@+", Held: 3}
	bob      = Caller{Owner: "bob"}
	operator = Caller{Owner: "ops", IsOperator: true}
	nobody   = Caller{}
)

func offerAs(t *testing.T, a *Allocator, caller Caller, r Request) Offer {
	t.Helper()
	offers, _, err := a.Offer(t.Context(), caller, DefaultPool, "web", []Request{r}, Wait{})
	must(t, err)
	return offers[0]
}

func claimAs(t *testing.T, a *Allocator, caller Caller, r Request) Allocation {
	t.Helper()
	allocations, _, err := a.Claim(t.Context(), caller, DefaultPool, "web", []Request{r}, Wait{})
	must(t, err)
	return allocations[0]
}

// quotaOf returns how many ports more an owner may have of two, by claiming them and giving them back.
func quotaOf(t *testing.T, a *Allocator, caller Caller) (more int) {
	t.Helper()
	for more = range 4 {
		name := "more-" + strconv.Itoa(more)
		_, _, err := a.Claim(t.Context(), caller, DefaultPool, "web", []Request{{Name: name}}, Wait{})
		if errors.Is(err, ErrQuotaExceeded) {
			break
		}
		must(t, err)
		defer func() { must(t, a.Release(t.Context(), caller, DefaultPool, "web", name, Proof{})) }()
	}
	return more
}

func wantMore(t *testing.T, what string, a *Allocator, want int) {
	t.Helper()
	if got := quotaOf(t, a, ann); got != want {
		t.Errorf("%s: the owner may have %d more ports, want %d", what, got, want)
	}
}

// Who may do what with an offer and an allocation of another.
func TestOwners(t *testing.T) {
	type call func(caller Caller, lease *time.Duration) error
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		ctx, a := t.Context(), newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2199)
		var offer Offer
		var held Allocation
		offers := map[string]call{
			"read": func(c Caller, _ *time.Duration) error {
				_, err := a.OpenOffer(ctx, c, DefaultPool, "web", offer.Secret)
				return err
			},
			"accept": func(c Caller, l *time.Duration) error {
				_, _, err := a.Accept(ctx, c, DefaultPool, "web", offer.Secret, l)
				return err
			},
			"reject": func(c Caller, _ *time.Duration) error {
				_, err := a.Reject(ctx, c, DefaultPool, "web", offer.Secret, false)
				return err
			},
		}
		allocations := map[string]call{
			"renew": func(c Caller, _ *time.Duration) error {
				_, err := a.Renew(ctx, c, DefaultPool, "web", "held", held.Secret, new(time.Hour))
				return err
			},
			"release": func(c Caller, _ *time.Duration) error { return a.Release(ctx, c, DefaultPool, "web", "held", Proof{}) },
			"release by secret": func(c Caller, _ *time.Duration) error {
				return a.Release(ctx, c, DefaultPool, "web", "held", Proof{Secret: held.Secret})
			},
		}
		for _, count := range []int{1, 2} {
			for _, lease := range []*time.Duration{nil, new(time.Hour)} {
				for what, do := range offers {
					for _, caller := range []Caller{bob, operator, nobody, ann} {
						offer = offerAs(t, a, ann, Request{Name: "held", Count: &count})
						if err := do(caller, lease); errors.Is(err, ErrNotOwner) != (caller == bob) || caller != bob && err != nil {
							t.Errorf("%s %d of another by %+v: %v", what, count, caller, err)
						}
						clearHeld(t, a, store)
					}
				}
				for what, do := range allocations {
					for _, caller := range []Caller{bob, operator, nobody, ann} {
						held = claimAs(t, a, ann, Request{Name: "held", Count: &count, Lease: lease})
						refused := caller == bob && what != "release by secret"
						if err := do(caller, nil); errors.Is(err, ErrNotOwner) != refused || !refused && err != nil {
							t.Errorf("%s %d of another by %+v: %v", what, count, caller, err)
						}
						clearHeld(t, a, store)
					}
				}
			}
		}
	})
}

// clearHeld gives back what "held" has, after which its owner has nothing, in its set either.
func clearHeld(t *testing.T, a *Allocator, store storetest.Store) {
	t.Helper()
	offers, _, err := a.Offers(t.Context(), DefaultPool, "web", Filter{}, "", MaxPage)
	must(t, err)
	for _, offer := range offers {
		secret, _ := record(store.Admin.HGet(t.Context(), store.Prefix+":{default}:offers:web", strconv.Itoa(offer.Port)).Val()).text(`"secret":"`)
		_, err := a.Reject(t.Context(), operator, DefaultPool, "web", secret, false)
		must(t, err)
	}
	if err := a.Release(t.Context(), operator, DefaultPool, "web", "held", Proof{}); err != nil && !errors.Is(err, ErrPortNotFound) {
		t.Fatal(err)
	}
	if left := store.Admin.ZRange(t.Context(), store.Prefix+":{default}:owner:"+ann.Owner, 0, -1).Val(); len(left) > 0 {
		t.Fatalf("the owner is said to hold %v", left)
	}
}

// Another owner cannot repeat a call that it did not make, nor claim what is on offer to another.
func TestOwnersOfSecrets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		ctx, a := t.Context(), newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2199)
		offer, held := offerAs(t, a, ann, Request{Name: "a", Secret: modelSecrets[0]}), claimAs(t, a, ann, Request{Name: "b", Secret: modelSecrets[1]})
		if offer.Owner != ann.Owner || held.Owner != ann.Owner {
			t.Errorf("the offer is of %q, the allocation of %q", offer.Owner, held.Owner)
		}
		of := func(name, secret string) []Request { return []Request{{Name: name, Secret: secret}} }
		for _, other := range []Caller{bob, operator} {
			_, _, err := a.Offer(ctx, other, DefaultPool, "web", of("a", offer.Secret), Wait{})
			wantError(t, "the same offer", err, ErrNotOwner)
			_, _, err = a.Claim(ctx, other, DefaultPool, "web", of("a", offer.Secret), Wait{})
			wantError(t, "a claim of the offer", err, ErrNotOwner)
			_, _, err = a.Claim(ctx, other, DefaultPool, "web", of("b", held.Secret), Wait{})
			wantError(t, "the same claim", err, ErrNotOwner)
		}
		_, _, err := a.Claim(ctx, nobody, DefaultPool, "web", of("a", offer.Secret), Wait{})
		wantError(t, "a claim of the offer by nobody", err, ErrNotOwner)
		if claimed := claimAs(t, a, ann, of("a", offer.Secret)[0]); claimed.Owner != ann.Owner || claimed.Port != offer.Port {
			t.Errorf("its owner claims the offer: %+v", claimed)
		}
		wantMore(t, "two held", a, 1)

		plain := offerAs(t, a, nobody, Request{Name: "c", Secret: modelSecrets[2]}) // what nobody owns is as it was
		if claimed := claimAs(t, a, ann, of("c", plain.Secret)[0]); claimed.Owner != "" {
			t.Errorf("a claim of nobody's offer: %+v", claimed)
		}
		wantMore(t, "nobody's offer does not count", a, 1)
		must(t, a.Release(ctx, bob, DefaultPool, "web", "c", Proof{}))
	})
}

// A quota counts offers and allocations of all services of a pool; what runs over it gets nothing, and each end frees it.
func TestQuota(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		ctx, a := t.Context(), newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2199)
		mustDefine(t, a, "db", 3000, 3009)
		wantMore(t, "at first", a, 3)
		_, _, err := a.Claim(ctx, ann, DefaultPool, "db", []Request{{Name: "db", Lease: new(time.Hour)}}, Wait{})
		must(t, err)
		block := offerAs(t, a, ann, Request{Name: "block", Count: new(2), Secret: modelSecrets[0]})
		wantMore(t, "a lease and an offer of two", a, 0)
		if again := offerAs(t, a, ann, Request{Name: "block", Count: new(2), Secret: modelSecrets[0]}); again.Port != block.Port {
			t.Errorf("the offer repeated at the quota: %+v", again)
		}
		for _, requests := range [][]Request{{{Name: "x"}}, {{Name: "x"}, {Name: "y"}}, {{Name: "x", Count: new(2)}}} {
			_, _, err := a.Offer(ctx, ann, DefaultPool, "web", requests, Wait{})
			wantError(t, "an offer over the quota", err, ErrQuotaExceeded)
			_, _, err = a.Claim(ctx, ann, DefaultPool, "web", requests, Wait{Longest: time.Second})
			wantError(t, "a claim over the quota", err, ErrQuotaExceeded)
		}
		if names := fields(t, store, "names:web"); names != "block" {
			t.Errorf("calls over the quota leave %s", names)
		}
		_, _, err = a.Claim(ctx, ann, "other", "web", []Request{{Name: "x"}}, Wait{})
		wantError(t, "in another pool", err, ErrServiceNotFound)

		_, _, err = a.Accept(ctx, ann, DefaultPool, "web", block.Secret, nil)
		must(t, err)
		wantMore(t, "accepted", a, 0)
		_, err = a.Renew(ctx, ann, DefaultPool, "web", "block", block.Secret, new(MinLease))
		must(t, err)
		must(t, a.Release(ctx, operator, DefaultPool, "db", "db", Proof{}))
		wantMore(t, "released by another", a, 1)
		passes(t, store, MinLease+time.Millisecond)
		wantMore(t, "the lease has ended", a, 3)
		_, err = a.Reject(ctx, ann, DefaultPool, "web", offerAs(t, a, ann, Request{Name: "x", Count: new(3)}).Secret, true)
		must(t, err)
		wantMore(t, "rejected as in use", a, 3)
		offerAs(t, newAllocator(store, short), ann, Request{Name: "x", Count: new(3)})
		wantMore(t, "offered", a, 0)
		passes(t, store, short+time.Millisecond)
		wantMore(t, "the offer has run out", a, 3)
		_, _, err = a.Claim(ctx, ann, DefaultPool, "web", []Request{{Name: "x", Count: new(4)}}, Wait{})
		wantError(t, "a block over the quota", err, ErrQuotaExceeded)
	})
}

// A quota that is set later counts what its owner has by then.
func TestQuotaSetLater(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2199)
	claimAs(t, a, Caller{Owner: ann.Owner}, Request{Name: "before", Count: new(2)})
	wantMore(t, "two before", a, 1)
}

// However many claim at a time, on three servers, an owner has as many ports as it may.
func TestQuotaIsExact(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		const quota, calls = 50, 200
		caller := Caller{Owner: "many", Held: quota}
		servers := []*Allocator{newAllocator(store, long), newAllocator(store, long), newAllocator(store, long)}
		mustDefine(t, servers[0], "web", 2000, 2999)
		for round, plain := range []bool{true, false} {
			var granted, refused atomic.Int64
			var all sync.WaitGroup
			for i := range calls {
				all.Go(func() {
					r := Request{Name: fmt.Sprintf("n%d-%d", round, i)}
					if !plain && i%3 > 0 {
						r.Count = new(i % 3)
					}
					_, _, err := servers[i%3].Claim(t.Context(), caller, DefaultPool, "web", []Request{r}, Wait{})
					switch {
					case err == nil:
						granted.Add(int64(r.count()))
					case errors.Is(err, ErrQuotaExceeded):
						refused.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			all.Wait()
			if n := granted.Load(); n != quota || refused.Load() == 0 {
				t.Errorf("%d ports of %d were granted, and %d calls refused", n, quota, refused.Load())
			}
			released, err := servers[0].ReleaseMatching(t.Context(), caller, DefaultPool, "web", Filter{Owner: caller.Owner})
			if err != nil || len(released) == 0 {
				t.Errorf("%d allocations released, error %v", len(released), err)
			}
		}
	})
}

// Releasing all of an owner takes pages and blocks, leaves others and offers, and drops what its key has without a record.
func TestReleaseOwned(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, all := newAllocator(store, long), Caller{Owner: ann.Owner}
		mustDefine(t, a, "web", 2000, 2199)
		for i := range 20 {
			claimAs(t, a, all, Request{Name: fmt.Sprintf("a%d", i), Count: new(1 + i%2), Lease: optional(time.Duration(i%3) * time.Hour)})
			claimAs(t, a, bob, Request{Name: fmt.Sprintf("b%d", i)})
		}
		offerAs(t, a, all, Request{Name: "offer"})
		must(t, store.Admin.ZAdd(t.Context(), store.Prefix+":{default}:owner:"+ann.Owner, redis.Z{Score: 1<<53 - 1, Member: "2150"}).Err())
		_, err := a.ReleaseMatching(t.Context(), bob, DefaultPool, "web", Filter{Owner: ann.Owner})
		wantError(t, "another releases all", err, ErrNotOwner)
		_, err = a.ReleaseMatching(t.Context(), operator, DefaultPool, "web", Filter{Owner: ""})
		wantError(t, "no owner", err, ErrInvalid)
		if released, err := a.ReleaseMatching(t.Context(), operator, DefaultPool, "web", Filter{Owner: ann.Owner}); len(released) != 20 || err != nil {
			t.Errorf("%d released, error %v", len(released), err)
		}
		for owner, want := range map[string]int{ann.Owner: 0, "bob": 20, "": 20} {
			if list, _, err := a.Allocations(t.Context(), DefaultPool, "web", Filter{Owner: owner}, "", MaxPage); len(list) != want || err != nil {
				t.Errorf("%q has %d allocations, want %d, error %v", owner, len(list), want, err)
			}
		}
		wantMore(t, "but for an offer", a, 2)
	})
}

// The set of an owner ends with the last hold in it.
func TestOwnersAreForgotten(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2199)
		key, ctx := store.Prefix+":{default}:owner:bob", t.Context()
		ttl := func(what string, low, high time.Duration) {
			t.Helper()
			if got := store.Admin.PTTL(ctx, key).Val(); got < low || got > high {
				t.Errorf("%s: the key lasts %s, want %s to %s", what, got, low, high)
			}
		}
		offerAs(t, a, bob, Request{Name: "a"})
		ttl("an offer", long-time.Minute, long)
		claimAs(t, a, bob, Request{Name: "b"})
		ttl("what lasts", 1000*24*time.Hour, 50_000*24*time.Hour)
		must(t, a.Release(ctx, bob, DefaultPool, "web", "b", Proof{}))
		ttl("an offer again", long-time.Minute, long)
		offerAs(t, newAllocator(store, short), bob, Request{Name: "c"})
		passes(t, store, short+time.Millisecond)
		offerAs(t, a, bob, Request{Name: "d"})
		if n := store.Admin.ZCard(ctx, key).Val(); n != 2 {
			t.Errorf("the key has %d ports, one of them long over", n)
		}
	})
}

// A server that knows no owners reads the records of one as what they are, but for the owner: these are its parsers.
func TestOlderServersReadOwnersRecords(t *testing.T) {
	const allocation = `local name, count, created, fence, lease, secret = string.match(ARGV[1],
		'^{"name":"([^"]+)","port":%d+(.-),"created":(%d+),"fence":(%d+)(.-),"secret":"([^"]+)"}$')
		return {name, count == '' and '1' or string.match(count, '%d+'), fence, lease ~= '' and string.match(lease, '%d+') or 'none', secret}`
	const offer = `local service, name, port, count, expires, lease, mark = string.match(ARGV[1],
		'^{"service":"([^"]+)","name":"([^"]+)","port":(%d+)(.-),"created":%d+,"expires":(%d+)(.-),"secret":"[^"]+"(.*)}$')
		return {name, count == '' and '1' or string.match(count, '%d+'), expires, lease ~= '' and string.match(lease, '%d+') or 'none', mark}`
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2199)
		owner := Caller{Owner: "9:8/7"}
		reads := func(key, script string, port int, want ...any) {
			t.Helper()
			text := store.Admin.HGet(t.Context(), store.Prefix+":{default}:"+key, strconv.Itoa(port)).Val()
			if got, err := store.Admin.Eval(t.Context(), script, nil, text).Slice(); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s is read as %v, want %v, error %v", text, got, want, err)
			}
		}
		for i, count := range []int{1, 3} {
			for j, lease := range []time.Duration{0, time.Hour} {
				name, ms := fmt.Sprintf("n%d-%d", i, j), "none"
				if lease > 0 {
					ms = "3600000"
				}
				o := offerAs(t, a, owner, Request{Name: name, Count: &count, Lease: optional(lease)})
				reads("offers:web", offer, o.Port, name, strconv.Itoa(count), strconv.FormatInt(o.Expires.UnixMilli(), 10), ms, "")
				c, _, err := a.Accept(t.Context(), owner, DefaultPool, "web", o.Secret, nil)
				must(t, err)
				reads("ports:web", allocation, c.Port, name, strconv.Itoa(count), strconv.FormatInt(c.Fence, 10), ms, o.Secret)
			}
		}
	})
}

// Nobody's records are what they always were, and nothing else is kept for nobody.
func TestRecordsOfNobody(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2199)
	claim, offer := claimAs(t, a, nobody, Request{Name: "a", Secret: modelSecrets[0]}), offerAs(t, a, nobody, Request{Name: "b", Secret: modelSecrets[1]})
	get := func(key string, port int) string {
		return store.Admin.HGet(t.Context(), store.Prefix+":{default}:"+key, strconv.Itoa(port)).Val()
	}
	want := fmt.Sprintf(`{"name":"a","port":2000,"created":%d,"fence":%d,"secret":"%s"}`, claim.Created.UnixMilli(), claim.Fence, claim.Secret)
	if got := get("ports:web", 2000); got != want {
		t.Errorf("the allocation is %s, want %s", got, want)
	}
	want = fmt.Sprintf(`{"service":"web","name":"b","port":2001,"created":%d,"expires":%d,"secret":"%s"}`,
		offer.Created.UnixMilli(), offer.Expires.UnixMilli(), offer.Secret)
	if got := get("offers:web", 2001); got != want {
		t.Errorf("the offer is %s, want %s", got, want)
	}
	claimAs(t, a, ann, Request{Name: "c"})
	if got := get("ports:web", 2002); !strings.HasPrefix(got, `{"name":"c","port":2002,"count":1,"owner":"gitlab:17/ci@+","created":`) {
		t.Errorf("the allocation of an owner is %s", got)
	}
	if keys := store.Admin.Keys(t.Context(), "*:owner:*").Val(); len(keys) != 1 {
		t.Errorf("keys of owners: %v", keys)
	}
	_, _, err := a.Offer(t.Context(), Caller{Owner: `a"b`}, DefaultPool, "web", []Request{{Name: "d"}}, Wait{})
	wantError(t, "an owner that would need escapes", err, ErrInvalid)
}
