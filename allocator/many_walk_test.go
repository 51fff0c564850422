package allocator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// Calls that run as one script get the answers, and leave the state, that they would one by one. Two stores whose clocks agree get the
// same calls: one of them many at a time, the other one each. Those that were told to take the long path take it, one by one, on both.
func TestManyAreAsOneByOne(t *testing.T) {
	for name, open := range map[string]func(testing.TB) storetest.Store{"miniredis": storetest.Mini, "redis": clocked} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			w := twins{T: t, rand: rand.New(rand.NewPCG(seed, 1)), now: modelStart, seen: map[string]int{}}
			for i := range w.of {
				w.of[i].store = open(t)
				w.of[i].Allocator = newAllocator(w.of[i].store, 200*time.Millisecond)
				w.of[i].opts.History = 10_000
			}
			w.pass(0)
			w.both(func(a *Allocator) string {
				_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2099})
				return fmt.Sprint(err)
			})
			for n := 0; n < 120 || n < 600 && w.unseen() != nil; n++ {
				w.step()
			}
			if unseen := w.unseen(); unseen != nil {
				t.Errorf("never seen: %q", unseen)
			}
		})
	}
}

// twins are two allocators on stores of their own: the first is called many at a time, the second one by one.
type twins struct {
	*testing.T
	of [2]struct {
		*Allocator
		store storetest.Store
	}
	rand    *rand.Rand
	now     time.Time
	number  int
	secrets []string // of offers and claims
	seen    map[string]int
	caller  Caller                 // of this step
	offered Caller                 // of the last offers
	undo    func(*Allocator) error // ends a state in which few calls take the short paths
	owner   string                 // whose key its calls have: an operator's may act on what another has
}

func (w *twins) step() {
	w.pass(time.Duration(w.rand.IntN(60)) * time.Millisecond)
	w.caller = []Caller{{}, {}, {Owner: "ann.-+"}, {Owner: "bob", Held: 8, IsOperator: true}}[w.rand.IntN(4)]
	if w.undo != nil && w.rand.IntN(3) == 0 {
		w.both(func(a *Allocator) string { return fmt.Sprint(w.undo(a)) })
		w.undo = nil
	}
	act := w.rand.IntN(11)
	if act >= 4 && act <= 7 && w.rand.IntN(4) > 0 {
		w.caller = w.offered
	}
	w.owner = w.caller.Owner
	n := 2 + w.rand.IntN(8)
	if w.rand.IntN(10) == 0 {
		n = 60 + w.rand.IntN(20)
	}
	switch act {
	case 0:
		w.alone()
	case 1:
		w.acquire(lua.Claim, n)
	case 2, 3:
		w.acquire(lua.Offer, n)
		w.offered = w.caller
	case 4, 5:
		w.accept(n)
	case 6, 7:
		w.reject(n)
	case 8:
		w.release(3 * n)
	case 9, 10:
		w.renew(n)
	}
	w.compare()
}

// unseen returns the outcomes that the walk has not come to yet.
func (w *twins) unseen() (outcomes []string) {
	for _, outcome := range []string{
		"offer_many record", "offer_many 0", "claim_many record", "claim_many 0", "accept_many record", "accept_many 0",
		"release_many 1", "release_many 0", "offer_many of an owner record", "offer_many of an owner 0", "claim_many of an owner record",
		"claim_many of an owner 0", "accept_many of an owner record", "accept_many of an owner 0", "release_many of an owner 1",
		"release_many of an owner 0", "reject_many 1", "reject_many 0", "reject_many of an owner 1", "reject_many of an owner 0",
		"renew_many record", "renew_many 0", "renew_many of an owner record", "renew_many of an owner 0", "renew_many of another owner record",
		"two scripts", "fresh and used",
	} {
		if w.seen[outcome] == 0 {
			outcomes = append(outcomes, outcome)
		}
	}
	return outcomes
}

// pass lets time pass on both stores.
func (w *twins) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for _, each := range w.of {
		if each.store.Clock != nil {
			each.store.Clock.Stop(w.now)
		} else {
			each.store.Mini.SetTime(w.now)
			each.store.Mini.FastForward(d)
		}
	}
}

func (w *twins) name() string { return fmt.Sprintf("n%d", w.rand.IntN(120)) }

// secret returns one that was used before now and then.
func (w *twins) secret() string {
	if len(w.secrets) > 0 && w.rand.IntN(8) == 0 {
		return w.secrets[w.rand.IntN(len(w.secrets))]
	}
	w.number++
	w.secrets = append(w.secrets, fmt.Sprintf("00000000-0000-4000-8000-%012d", w.number))
	return w.secrets[len(w.secrets)-1]
}

func (w *twins) acquire(script *lua.Script, n int) {
	requests := make([]Request, n)
	for i := range requests {
		requests[i] = Request{Name: w.name(), Secret: w.secret()}
		if w.rand.IntN(2) == 0 {
			w.number++
			requests[i].Secret, requests[i].generated = fmt.Sprintf("00000000-0000-4000-8000-%012d", w.number), true
			defer func() { w.secrets = append(w.secrets, requests[i].Secret) }()
		}
		if script == lua.Claim && w.rand.IntN(3) == 0 {
			requests[i].Lease = new(time.Duration(1+w.rand.IntN(200)) * time.Millisecond)
		}
	}
	acquisitionOf := func(a *Allocator, i int) acquisition {
		c := acquisition{caller: w.callerOf(i), pool: DefaultPool, service: "web", requests: requests[i : i+1], script: script, remember: a.opts.OfferTTL}
		if script == lua.Claim {
			c.remember = remembered
		}
		return c
	}
	w.calls(n, func(a *Allocator, i int) executor.Call {
		call, isPlain := a.plainCall(acquisitionOf(a, i))
		if !isPlain {
			w.Fatal("it is no plain call")
		}
		return call
	}, func(a *Allocator, i int) string {
		grants, err := a.acquire(w.Context(), acquisitionOf(a, i))
		return fmt.Sprint(grants, err)
	})
}

func (w *twins) accept(n int) {
	secrets := make([]string, n)
	for i := range secrets {
		secrets[i] = w.secret()
		if recent := len(w.secrets); recent > 0 && w.rand.IntN(10) > 0 {
			secrets[i] = w.secrets[max(0, recent-1-w.rand.IntN(2*n))]
		}
	}
	w.calls(n, func(a *Allocator, i int) executor.Call {
		return a.plainAccept(w.callerOf(i), DefaultPool, "web", secrets[i])
	}, func(a *Allocator, i int) string {
		allocation, created, err := a.Accept(w.Context(), w.callerOf(i), DefaultPool, "web", secrets[i], nil)
		return fmt.Sprint(allocation, created, err)
	})
}

func (w *twins) release(n int) {
	holders, proofs := make([]string, n), make([]Proof, n)
	for i := range holders {
		holders[i] = w.name()
		if w.rand.IntN(3) == 0 {
			holders[i] = fmt.Sprint(2000 + w.rand.IntN(110))
		}
		if held, err := w.of[0].Allocation(w.Context(), DefaultPool, "web", holders[i]); err == nil && w.rand.IntN(2) == 0 {
			proofs[i].Fences = []int64{held.Fence - int64(w.rand.IntN(2))}
		}
	}
	w.calls(n, func(a *Allocator, i int) executor.Call {
		return a.plainRelease(w.callerOf(i), DefaultPool, "web", proofs[i].which(holders[i]))
	}, func(a *Allocator, i int) string {
		return fmt.Sprint(a.Release(w.Context(), w.callerOf(i), DefaultPool, "web", holders[i], proofs[i]))
	})
}

func (w *twins) reject(n int) {
	w.actForAnother()
	secrets, inUse := make([]string, n), make([]bool, n)
	for i := range secrets {
		secrets[i], inUse[i] = w.secret(), w.rand.IntN(8) == 0
		if recent := len(w.secrets); w.rand.IntN(10) > 0 {
			secrets[i] = w.secrets[max(0, recent-1-w.rand.IntN(2*n))]
		}
	}
	w.calls(n, func(a *Allocator, i int) executor.Call {
		return w.owned(a, a.rejectCall(w.callerOf(i), DefaultPool, "web", secrets[i], inUse[i]))
	}, func(a *Allocator, i int) string {
		rejected, err := a.Reject(w.Context(), w.callerOf(i), DefaultPool, "web", secrets[i], inUse[i])
		return fmt.Sprint(rejected, err)
	})
}

func (w *twins) renew(n int) {
	w.actForAnother()
	holders, secrets, leases := make([]string, n), make([]string, n), make([]*time.Duration, n)
	for i := range holders {
		holders[i], secrets[i] = w.name(), w.secret()
		if w.rand.IntN(3) == 0 {
			holders[i] = fmt.Sprint(2000 + w.rand.IntN(110))
		}
		if secret := w.secretOf(holders[i]); secret != "" && w.rand.IntN(6) > 0 {
			secrets[i] = secret
		}
		if w.rand.IntN(3) > 0 {
			leases[i] = new(time.Duration(1+w.rand.IntN(300)) * time.Millisecond)
			if w.rand.IntN(4) == 0 {
				leases[i] = new(MinLease + time.Duration(w.rand.IntN(2))*time.Millisecond)
			}
		}
	}
	w.calls(n, func(a *Allocator, i int) executor.Call {
		return w.owned(a, a.renewCall(w.callerOf(i), DefaultPool, "web", holders[i], secrets[i], leases[i]))
	}, func(a *Allocator, i int) string {
		allocation, err := a.Renew(w.Context(), w.callerOf(i), DefaultPool, "web", holders[i], secrets[i], leases[i])
		return fmt.Sprint(allocation, err)
	})
}

// secretOf returns the secret of an allocation, which no call tells, also if its lease has ended.
func (w *twins) secretOf(holder string) string {
	k, admin := w.of[0].keys.Pool(DefaultPool), w.of[0].store.Admin
	if port := admin.HGet(w.Context(), k.Names("web"), holder).Val(); port != "" {
		holder = port
	}
	secret, _ := record(admin.HGet(w.Context(), k.Ports("web"), holder).Val()).text(`"secret":"`)
	return secret
}

// callerOf returns who makes a call of this step: each has an id of its own.
func (w *twins) callerOf(i int) Caller {
	caller := w.caller
	caller.RequestID = fmt.Sprint("r", i)
	return caller
}

func (w *twins) actForAnother() {
	if w.caller.IsOperator && w.rand.IntN(2) == 0 {
		w.owner = "ann.-+"
	}
}

// owned adds to a call what runOwned does.
func (w *twins) owned(a *Allocator, c executor.Call) executor.Call {
	a.keys.Pool(DefaultPool).AddOwner(&c, w.owner, flag(!w.caller.IsOperator))
	return c
}

// alone makes a call that has no script of many, so that these meet what it leaves.
func (w *twins) alone() {
	name, secret, port := w.name(), w.secret(), 2000+w.rand.IntN(100)
	choice, cooldown := w.rand.IntN(7), time.Duration(w.rand.IntN(3)*40)*time.Millisecond
	web := Definition{Name: "web", Start: 2000, End: 2099, Cooldown: cooldown}
	waiting := []Request{{Name: name, Secret: secret, Count: new(90)}}
	ticket := ticketOf("nobody", 1, waiting)
	if choice <= 1 && w.undo != nil {
		choice = 6
	}
	if choice == 0 && w.rand.IntN(3) == 0 {
		web.MaxLease = new(MinLease)
		w.undo = func(a *Allocator) error {
			_, _, err := a.Define(w.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2099})
			return err
		}
	}
	if choice == 1 {
		w.undo = func(a *Allocator) error { return a.leaveWaitlist(w.Context(), waitlistKey{DefaultPool, "web"}, ticket) }
	}
	w.both(func(a *Allocator) string {
		switch choice {
		case 0:
			_, _, err := a.Define(w.Context(), Caller{}, DefaultPool, web)
			return fmt.Sprint(err)
		case 1: // it waits, but its server is never heard of
			c := acquisition{pool: DefaultPool, service: "web", requests: waiting, script: lua.Claim, remember: remembered}
			answer, err := a.try(w.Context(), c, ticket, true)
			return fmt.Sprint(answer, err)
		case 2:
			offer, _, err := offerOne(w.Context(), a, DefaultPool, "web", Request{Name: name, Secret: secret, Count: new(3)}, 0)
			return fmt.Sprint(offer, err)
		case 3:
			offer, _, err := offerOne(w.Context(), a, DefaultPool, "web", Request{Name: name, Secret: secret, Lease: new(MinLease)}, 0)
			return fmt.Sprint(offer, err)
		case 4:
			allocation, _, err := claimOne(w.Context(), a, DefaultPool, "web", Request{Name: name, Secret: secret, Count: new(3), Lease: new(MinLease)}, 0)
			return fmt.Sprint(allocation, err)
		case 5:
			offer, _, err := offerOne(w.Context(), a, DefaultPool, "web", Request{Name: name, Secret: secret, Labels: `{"a":"b"}`}, 0)
			return fmt.Sprint(offer, err)
		}
		allocation, _, err := claimOne(w.Context(), a, DefaultPool, "web", Request{Name: name, Secret: secret, Port: &port}, 0)
		return fmt.Sprint(allocation, err)
	})
}

// calls makes n calls: many at a time on the first store, and in the order in which they took effect there on the second.
func (w *twins) calls(n int, plain func(a *Allocator, i int) executor.Call, inFull func(a *Allocator, i int) string) {
	w.pass(time.Millisecond) // a server that has just read the clock expects higher fences than one that has not
	many := make([]executor.Call, n)
	for i := range many {
		many[i] = plain(w.of[0].Allocator, i)
	}
	name := many[0].Many.Name[len("ports/"):]
	if w.caller.Owner != "" {
		name += map[bool]string{true: " of an owner", false: " of another owner"}[w.owner == w.caller.Owner]
	}
	var later []int
	for i, r := range w.of[0].executor.RunAll(w.Context(), many, n) {
		_, isAnothers := anotherOwner(r.Answer)
		refused, isRefused := r.Err.(*executor.Error)
		isRefused = isRefused && refused.Outcome == executor.Refused && i == 64 && n == 65 // it ran by itself
		if r.Err != nil && !isRefused {
			w.Fatalf("call %d of %s: %v", i, name, r.Err)
		}
		if r.Answer == longWay || isAnothers || isRefused {
			w.seen[name+" 0"]++
			later = append(later, i)
			continue
		}
		one, err := w.of[1].write(w.Context(), plain(w.of[1].Allocator, i))
		if err != nil || one != r.Answer {
			w.Fatalf("call %d of %s:\n%v\nby itself:\n%v, %v", i, name, r.Answer, one, err)
		}
		outcome := "record"
		if _, isText := r.Answer.(string); !isText {
			outcome = fmt.Sprint(r.Answer)
		}
		w.seen[name+" "+outcome]++
	}
	if n > 64 {
		w.seen["two scripts"]++
	}
	for _, i := range later {
		w.both(func(a *Allocator) string { return inFull(a, i) })
	}
}

// both makes a call on each store, and compares the answers.
func (w *twins) both(do func(*Allocator) string) {
	w.Helper()
	if one, other := do(w.of[0].Allocator), do(w.of[1].Allocator); one != other {
		w.Fatalf("the answers differ:\n%s\n%s", one, other)
	}
}

// compare compares the stores: all keys of the pool.
func (w *twins) compare() {
	w.Helper()
	var states [2][]string
	for i, each := range w.of {
		var lines []string
		for _, key := range allKeys(w.T, each.store) {
			if short := strings.TrimPrefix(key, each.store.Prefix); strings.HasPrefix(short, ":{") {
				lines = append(lines, short+" "+w.valueOf(each.store, key))
			}
		}
		states[i] = slices.Sorted(slices.Values(lines))
	}
	if !slices.Equal(states[0], states[1]) {
		w.Fatalf("the states differ:\n%s", differences(states[0], states[1]))
	}
	if text := strings.Join(states[0], "\n"); strings.Contains(text, ":free:web ") && strings.Contains(text, ":fresh:web ") {
		w.seen["fresh and used"]++
	}
}

func (w *twins) valueOf(store storetest.Store, key string) string {
	ctx, c := w.Context(), store.Admin
	switch kind := c.Type(ctx, key).Val(); kind {
	case "string":
		return fmt.Sprint(c.Get(ctx, key).Val(), c.PTTL(ctx, key).Val() > 2*time.Minute)
	case "hash":
		return fmt.Sprint(c.HGetAll(ctx, key).Val())
	case "zset":
		return fmt.Sprint(c.ZRangeWithScores(ctx, key, 0, -1).Val())
	case "stream":
		return fmt.Sprint(c.XRange(ctx, key, "-", "+").Val())
	default:
		w.Fatalf("%s is a %s", key, kind)
		return ""
	}
}
