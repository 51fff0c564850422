package allocator

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// inTheFuture lets a store without a real clock be so much later than it is, and returns what sets it back.
func inTheFuture(t *testing.T, store storetest.Store, step time.Duration) (back func()) {
	t.Helper()
	now := storeTime(t, store)
	store.Mini.SetTime(now.Add(step))
	return func() { store.Mini.SetTime(now) }
}

// held is what a service has that somebody holds.
type held struct{ offers, leases, forEver []Request }

// TestAClockThatStepsBackKeepsNothingFromAnybody fills a service in every way, steps back, and looks who has what.
func TestAClockThatStepsBackKeepsNothingFromAnybody(t *testing.T) {
	for _, step := range []time.Duration{5 * time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		for round := range 2 {
			t.Run(fmt.Sprintf("%s %d", step, round), func(t *testing.T) {
				t.Parallel()
				stepsBack(t, step, rand.New(rand.NewPCG(uint64(round), 1)))
			})
		}
	}
}

func stepsBack(t *testing.T, step time.Duration, random *rand.Rand) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	const start, end = 9900, 11899 // so that the ports of a block are not in the order of their names
	mustDefine(t, a, "web", start, end)
	back := inTheFuture(t, store, step)
	var holders held
	ctx := t.Context()
	for i := range 120 {
		w := Request{Name: fmt.Sprintf("n-%d", i)}
		if random.IntN(2) == 0 {
			w.Count = new(1 + random.IntN(40))
		}
		if random.IntN(3) == 0 {
			w.Lease = new(time.Hour)
		}
		offer, _, err := offerOne(ctx, a, DefaultPool, "web", w, 0)
		if err != nil {
			wantError(t, "an offer", err, ErrExhausted)
			continue
		}
		w.Secret = offer.Secret
		switch random.IntN(6) {
		case 0, 1:
			holders.offers = append(holders.offers, w)
		case 2:
			_, err = a.Reject(ctx, Caller{}, DefaultPool, "web", offer.Secret, random.IntN(2) == 0)
			must(t, err)
		default:
			_, _, err = a.Accept(ctx, Caller{}, DefaultPool, "web", offer.Secret, nil)
			must(t, err)
			switch {
			case random.IntN(2) == 0:
				must(t, a.Release(ctx, Caller{}, DefaultPool, "web", w.Name, Proof{}))
			case w.Lease != nil:
				holders.leases = append(holders.leases, w)
			default:
				holders.forEver = append(holders.forEver, w)
			}
		}
		if random.IntN(3) == 0 {
			store.Mini.SetTime(storeTime(t, store).Add(time.Millisecond))
		}
	}
	back()
	saysSense(t, a, "before")
	must(t, a.epoch.MendClock(ctx, step))
	contradictions(t, store, a, DefaultPool, "web")
	s := saysSense(t, a, "after")
	offered, allocated := countOf(holders.offers), countOf(holders.leases)+countOf(holders.forEver)
	if s.Ports.Offered != offered || s.Ports.Allocated != allocated {
		t.Errorf("%+v; %d are on offer, and %d allocated", s.Ports, offered, allocated)
	}

	store.Mini.SetTime(storeTime(t, store).Add(2 * quarantine)) // the longest that anything may rest
	for n, free := 0, s.Ports.Total-offered-allocated; n < free; n++ {
		if _, _, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: fmt.Sprintf("new-%d", n)}, 0); err != nil {
			t.Fatalf("port %d of %d that nobody holds: %v", n, free, err)
		}
	}
	for _, w := range holders.offers {
		if _, _, err := a.Accept(ctx, Caller{}, DefaultPool, "web", w.Secret, nil); err != nil {
			t.Errorf("%+v is on offer still: %v", w, err)
		}
	}
	for _, w := range append(holders.leases, holders.forEver...) {
		if _, err := a.Allocation(ctx, DefaultPool, "web", w.Name); err != nil {
			t.Errorf("%+v: %v", w, err)
		}
	}
	contradictions(t, store, a, DefaultPool, "web")
}

func countOf(wants []Request) (n int) {
	for _, w := range wants {
		n += w.count()
	}
	return n
}

// saysSense checks that no count of the service web is negative.
func saysSense(t *testing.T, a *Allocator, when string) Service {
	t.Helper()
	s, err := a.Service(t.Context(), DefaultPool, "web")
	must(t, err)
	if p := s.Ports; min(p.Free, p.Offered, p.Allocated, p.Cooling, s.Waiting) < 0 {
		t.Errorf("%s: %+v, %d wait", when, p, s.Waiting)
	}
	return s
}

func TestAServiceIsRemovedAfterAStepBack(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	back := inTheFuture(t, store, time.Hour)
	mustDefine(t, a, "web", 2000, 2009)
	mustAccept(t, a, mustOffer(t, a, "web", "ann"))
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
	must(t, store.Admin.Set(t.Context(), a.keys.Figures(), "old", time.Hour).Err())
	must(t, a.epoch.Recall(t.Context()))
	back()
	must(t, a.epoch.Recall(t.Context())) // as each second
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := a.Remove(t.Context(), Caller{}, DefaultPool, "web")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if store.Admin.Exists(t.Context(), a.keys.Figures()).Val() != 0 {
		t.Error("the figures of before are still there")
	}
}

// A server that is gone has a place in front. Its heartbeat lies an hour ahead.
func TestAWaitlistIsServedAfterAStepBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000)
		k := a.keys.Pool(DefaultPool)
		claimOf(t, a, DefaultPool, Request{Name: "ann"})
		ahead := func() {
			t.Helper()
			then := float64(storeTime(t, store).Add(time.Hour).UnixMilli())
			must(t, store.Admin.ZAdd(t.Context(), k.Waitlist("web"), redis.Z{Score: 0, Member: "gone-1/1/1"}).Err())
			must(t, store.Admin.HSet(t.Context(), k.Service("web"), "waiting", 1).Err())
			must(t, store.Admin.ZAdd(t.Context(), k.Heartbeats(), redis.Z{Score: then, Member: "gone"}).Err())
			must(t, store.Admin.ZAdd(t.Context(), k.Waitlists(), redis.Z{Score: then, Member: "web"}).Err())
		}
		ahead()
		if s := saysSense(t, a, "with a beat ahead"); s.Waiting != 0 {
			t.Errorf("%d wait, who are gone", s.Waiting)
		}
		for what, look := range map[string]func(){
			"a look at the waitlist": func() { a.lookAtWaitlists(map[waitlistKey][]string{{DefaultPool, "web"}: nil}) },
			"another's heartbeat": func() {
				_, err := a.write(t.Context(), k.Call(lua.Heartbeat, "", "", "another"))
				must(t, err)
			},
		} {
			ahead()
			look()
			if left := store.Admin.ZScore(t.Context(), k.Heartbeats(), "gone").Val() - float64(storeTime(t, store).UnixMilli()); left > 1500 {
				t.Errorf("after %s its place is kept for %.0f ms", what, left)
			}
		}
		got := make(chan error)
		go func() {
			_, _, err := claimOne(context.WithoutCancel(t.Context()), a, DefaultPool, "web", Request{Name: "bob"}, 20*time.Second)
			got <- err
		}()
		for store.Admin.ZCard(t.Context(), k.Waitlist("web")).Val() < 2 {
			time.Sleep(time.Millisecond)
		}
		ahead()
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
		released := time.Now()
		if err := <-got; err != nil || time.Since(released) > 3*time.Second {
			t.Errorf("after %s: %v", time.Since(released), err)
		}
	})
}

// A cut that somebody else has begun keeps others waiting for five seconds, not for an hour.
func TestACutGoesOnAfterAStepBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2999)
		for i := range 30 {
			secret := claimOf(t, a, DefaultPool, Request{Name: fmt.Sprintf("n-%d", i), Count: new(20)})
			if i > 0 {
				must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", fmt.Sprintf("n-%d", i), Proof{Secret: secret}))
			}
		}
		ahead := storeTime(t, store).Add(time.Hour).UnixMilli()
		must(t, store.Admin.HSet(t.Context(), a.keys.Pool(DefaultPool).Service("web"), "changing", fmt.Sprintf("narrow 2000 2500 o0 %d", ahead)).Err())
		mustDefine(t, a, "web", 2000, 2100)
	})
}

// TestTheServersOwnClockDecidesNothing finds what reads the wall clock in the code that talks to Redis: time.Now and what is
// computed of it is monotonic, and so are timers; its wall time must not be asked for.
func TestTheServersOwnClockDecidesNothing(t *testing.T) {
	here, err := filepath.Glob("*.go")
	must(t, err)
	below, err := filepath.Glob("e*/*.go") // epoch, executor
	must(t, err)
	read := 0
	for _, file := range append(here, below...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		read++
		positions := token.NewFileSet()
		parsed, err := parser.ParseFile(positions, file, nil, 0)
		must(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			selected, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			call, isCall := selected.X.(*ast.CallExpr)
			if isCall && isNow(call) && selected.Sel.Name != "Add" && selected.Sel.Name != "Sub" {
				t.Errorf("%s: time.Now().%s", positions.Position(n.Pos()), selected.Sel.Name)
			}
			switch selected.Sel.Name {
			case "Round", "Truncate", "UTC", "Local", "In", "Unix", "UnixNano", "UnixMicro", "AppendFormat", "MarshalJSON", "Format":
				if name := positions.Position(n.Pos()); !ofRedis[file+" "+selected.Sel.Name] {
					t.Errorf("%s: %s, which tells the wall clock", name, selected.Sel.Name)
				}
			}
			return true
		})
	}
	if read < 30 {
		t.Errorf("%d files were read", read)
	}
}

// ofRedis is where times are told that Redis has given.
var ofRedis = map[string]bool{
	"epoch/epoch.go UnixMicro": true, "epoch/recover.go UnixMicro": true,
	"event.go UTC": true, "free.go UTC": true, "map.go UTC": true, "record.go UTC": true, "service_read.go UTC": true, "waitlist_read.go UTC": true,
}

func isNow(call *ast.CallExpr) bool {
	of, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	from, ok := of.X.(*ast.Ident)
	return ok && from.Name == "time" && of.Sel.Name == "Now"
}
