package allocator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// got is what a call that waited ended with.
type got struct {
	who        string
	allocation Allocation
	err        error
}

// wait lets a name claim a port in the background, and returns when it stands on the waitlist.
func wait(ctx context.Context, t *testing.T, a *Allocator, want Request, ended chan<- got) {
	t.Helper()
	s, err := a.Service(t.Context(), DefaultPool, "web")
	must(t, err)
	go func() {
		allocation, _, err := claimOne(ctx, a, DefaultPool, "web", want, time.Minute)
		ended <- got{want.Name, allocation, err}
	}()
	waits(t, a, s.Waiting+1)
}

// waits returns when so many calls stand on the waitlist.
func waits(t *testing.T, a *Allocator, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := a.Service(t.Context(), DefaultPool, "web")
		must(t, err)
		if s.Waiting == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d calls wait, want %d", s.Waiting, n)
		}
	}
}

func mustClaim(t *testing.T, a *Allocator, want Request) Allocation {
	t.Helper()
	allocation, _, err := claimOne(t.Context(), a, DefaultPool, "web", want, 0)
	must(t, err)
	return allocation
}

// Two servers, one port: whoever came first gets it first, whichever server it asked.
func TestWaitlistIsServedInOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		servers := []*Allocator{newAllocator(store, long), newAllocator(store, long)}
		mustDefine(t, servers[0], "web", 2000, 2000)
		mustClaim(t, servers[0], Request{Name: "holder"})
		ended := make(chan got, 10)
		for i := range 10 {
			wait(t.Context(), t, servers[i%2], Request{Name: fmt.Sprintf("waiter-%d", i)}, ended)
		}
		holder := "holder"
		for i := range 10 {
			must(t, servers[0].Release(t.Context(), Caller{}, DefaultPool, "web", holder, Proof{}))
			_, _, err := claimOne(t.Context(), servers[1], DefaultPool, "web", Request{Name: "newcomer"}, 0)
			if wantError(t, "a newcomer", err, ErrExhausted); t.Failed() {
				return // somebody waits for what it has
			}
			served := <-ended
			must(t, served.err)
			if holder = served.who; holder != fmt.Sprintf("waiter-%d", i) {
				t.Errorf("%s is served, and waiter-%d came before it", holder, i)
			}
		}
		waits(t, servers[0], 0)
		if left := fields(t, store, "service:web"); strings.Contains(left, "waiting") {
			t.Errorf("nobody waits, and the service has the fields %s", left)
		}
	})
}

// What makes a port free makes no difference: a lease or an offer that runs out, a rejection, a wider range.
func TestLineHearsOfEveryPort(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		for what, frees := range map[string]func() error{
			"lease": func() error { passes(t, store, MinLease); return nil },
			"range": func() error {
				_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2001})
				return err
			},
			"release": func() error { return a.Release(t.Context(), Caller{}, DefaultPool, "web", "holder", Proof{}) },
		} {
			mustDefine(t, a, "web", 2000, 2000)
			mustClaim(t, a, Request{Name: "holder", Lease: new(MinLease)})
			ended := make(chan got, 1)
			wait(t.Context(), t, a, Request{Name: "waiter"}, ended)
			must(t, frees())
			if served := <-ended; served.err != nil {
				t.Errorf("%s: %v", what, served.err)
			}
			for _, name := range []string{"holder", "waiter"} {
				if err := a.Release(t.Context(), Caller{}, DefaultPool, "web", name, Proof{}); err != nil && !errors.Is(err, ErrPortNotFound) {
					t.Error(err)
				}
			}
		}
	})
}

// Who waits for several ports is passed by nobody, although there are some that would do for others.
func TestLineWaitsForABlock(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2002)
		for _, name := range []string{"a", "b", "c"} {
			mustClaim(t, a, Request{Name: name})
		}
		ended := make(chan got, 2)
		wait(t.Context(), t, a, Request{Name: "block", Count: new(2)}, ended)
		wait(t.Context(), t, a, Request{Name: "one"}, ended)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "a", Proof{}))
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "c", Proof{}))
		select {
		case early := <-ended:
			t.Errorf("%+v, while 2000 and 2002 were free", early)
		case <-time.After(100 * time.Millisecond):
		}
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "b", Proof{}))
		first, second := <-ended, <-ended
		if first.allocation.Fence > second.allocation.Fence { // their goroutines may end in any order
			first, second = second, first
		}
		if first.err != nil || first.who != "block" || first.allocation.Port != 2000 || second.err != nil || second.allocation.Port != 2002 {
			t.Errorf("%+v, then %+v", first, second)
		}
	})
}

// The ports of an offer that is rejected do not cool down, so a block that waits has them at once.
func TestLineHasWhatWasRejected(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 2002, Cooldown: time.Hour})
		must(t, err)
		offer, _, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "middle", Port: new(2001)}, 0)
		must(t, err)
		ended := make(chan got, 1)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		wait(ctx, t, a, Request{Name: "block", Count: new(2)}, ended)
		_, err = a.Reject(t.Context(), Caller{}, DefaultPool, "web", offer.Secret, false)
		must(t, err)
		if served := <-ended; served.err != nil || served.allocation.Port != 2000 {
			t.Errorf("%+v", served)
		}
	})
}

// A call that is given up has left the waitlist when it returns, and says why.
func TestLineIsLeft(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2000)
		mustClaim(t, a, Request{Name: "holder"})
		for _, cause := range []error{errors.New("hung up"), &Error{Code: CodeUnavailable, Detail: "shutting down"}} {
			ctx, end := context.WithCancelCause(t.Context())
			ended := make(chan got, 1)
			wait(ctx, t, a, Request{Name: "waiter"}, ended)
			end(cause)
			served := <-ended
			wantError(t, "given up", served.err, ErrUnavailable)
			if !errors.Is(served.err, cause) {
				t.Errorf("%v does not say why: %v", served.err, cause)
			}
			waits(t, a, 0)
		}
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "waiter"}, 30*time.Millisecond)
		wantError(t, "when the time is over", err, ErrExhausted)
		waits(t, a, 0)
	})
}

// gone is the context of a client that is gone from its nth look on.
type gone struct {
	context.Context
	looks int
}

func (g *gone) Err() error {
	if g.looks--; g.looks < 0 {
		return context.Canceled
	}
	return nil
}

// A client that hung up just when its port was taken keeps none, and nor does one that hung up before.
func TestLineGivesBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		for looks := range 2 {
			ctx := &gone{t.Context(), looks}
			_, _, err := a.Claim(ctx, Caller{}, DefaultPool, "web", []Request{{Name: "a"}, {Name: "b", Count: new(3)}}, Wait{Longest: time.Minute})
			wantError(t, "claim", err, ErrUnavailable)
			ctx = &gone{t.Context(), looks}
			_, _, err = offerOne(ctx, a, DefaultPool, "web", Request{Name: "c"}, time.Minute)
			wantError(t, "offer", err, ErrUnavailable)
		}
		s, err := a.Service(t.Context(), DefaultPool, "web")
		must(t, err)
		if s.Ports.Free != 10 {
			t.Errorf("%+v", s.Ports)
		}
	})
}

// A call that could not leave the waitlist, since Redis did not hear of it, does so later: when it is its turn and its server does not
// know it any more, and with the next heartbeats.
func TestLineIsLeftLater(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		for demand, remembered := range map[string]bool{"1/1": false, "2/1": true} {
			a := newAllocator(store, long)
			mustDefine(t, a, "web", 2000, 2001)
			mustClaim(t, a, Request{Name: "holder"})
			mustClaim(t, a, Request{Name: "another"})
			k := a.keys.Pool(DefaultPool)
			ghost := a.waitlist.server + "-0/" + demand
			call := k.Call(lua.Claim, "web", "", a.withEvents(Caller{}, "web", 1000, ghost, "1", "ghost", "ghost", "1", 0, 0)...)
			k.AddEach(&call, "web", "ghost")
			answer, err := a.write(t.Context(), call)
			must(t, err)
			if _, waits := waitingFor(answer); !waits {
				t.Fatalf("it is answered with %v", answer)
			}
			if remembered {
				a.waitlist.stuck[ghost] = waitlistKey{DefaultPool, "web"}
			}
			ended := make(chan got, 1)
			go func() {
				allocation, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "waiter"}, time.Minute)
				ended <- got{"waiter", allocation, err}
			}()
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "holder", Proof{}))
			select {
			case served := <-ended:
				must(t, served.err)
			case <-time.After(20 * time.Second):
				t.Fatalf("behind %s nobody is served", ghost)
			}
			for _, name := range []string{"waiter", "another"} {
				must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", name, Proof{}))
			}
		}
	})
}

// Who waits gets nothing from a state that is lost, and its turn when it was recovered.
func TestLineStandsStillWhileTheStateIsLost(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		wantProblems(t, a)
		mustDefine(t, a, "web", 2000, 2000)
		mustClaim(t, a, Request{Name: "holder"})
		ended := make(chan got, 1)
		wait(t.Context(), t, a, Request{Name: "waiter"}, ended)
		must(t, store.Admin.Del(t.Context(), a.keys.Epoch()).Err())
		wantProblems(t, a, StateLost)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "holder", Proof{}))
		select {
		case served := <-ended:
			t.Fatalf("%+v", served)
		case <-time.After(300 * time.Millisecond):
		}
		_, err := a.Recover(t.Context())
		must(t, err)
		wantProblems(t, a)
		must(t, (<-ended).err)
	})
}

// Many blocks on the waitlist that only fragmentation holds back cost those behind them nothing: each has its port as soon as there are
// enough for all, and newcomers have theirs.
func TestBlocksThatDoNotFitHoldNobodyBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		const blocks, singles, ports = 20, 12, 120
		mustDefine(t, a, "web", 2000, 2000+ports-1)
		claimAll(t, a, "web", 2000, 2000+ports-1)
		ended := make(chan got, blocks+singles)
		ctx, stop := context.WithCancel(t.Context())
		for i := range blocks {
			wait(ctx, t, a, Request{Name: fmt.Sprintf("block-%d", i), Count: new(2)}, ended)
		}
		for i := range singles {
			wait(ctx, t, a, Request{Name: fmt.Sprintf("single-%d", i)}, ended)
		}
		for port := 2000; port < 2000+ports; port += 2 { // no two in a row
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", fmt.Sprint(port), Proof{}))
		}
		began := time.Now()
		for range singles {
			served := <-ended
			must(t, served.err)
			if served.allocation.Count != 1 {
				t.Errorf("%+v", served)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s, as if they had been found by chance", took)
		}
		for i := range ports/2 - 2*blocks - singles {
			mustClaim(t, a, Request{Name: fmt.Sprintf("newcomer-%d", i)})
		}
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "one-too-many"}, 0)
		wantError(t, "what is left is kept for those on the waitlist", err, ErrExhausted)
		stop()
		for range blocks {
			<-ended
		}
	})
}

// losesOnce lets the answer of a call on the waitlist be lost once, when its turn has come; its client is gone then, or not.
type losesOnce struct {
	proxy  *proxy
	inLine *atomic.Bool
	looks  int // since it is on the waitlist
	gone   bool
}

func (c *losesOnce) abandoned() bool {
	if !c.inLine.Load() {
		return false
	}
	c.looks++
	c.proxy.lose.Store(c.looks == 1)
	return c.gone && c.looks > 2
}

// A call that is made again by the server, since the answer was lost when its turn came, ends as if it had not been: what it got
// is new to its client, and is given back where that is gone.
func TestLineLosesAnAnswer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		direct := newAllocator(store, long)
		mustDefine(t, direct, "web", 2000, 2000)
		proxy := losesAnswers(t, store)
		options := store.Options()
		options.Addr, options.TLSConfig, options.Dialer = proxy.addr, nil, nil
		client := redis.NewClient(options)
		t.Cleanup(func() { client.Close() })
		throughProxy := store
		throughProxy.Client = client
		a := newAllocator(throughProxy, long)
		for _, gone := range []bool{false, true} {
			holder := mustClaim(t, direct, Request{Name: "holder"})
			created := make(chan bool, 1)
			ended := make(chan error, 1)
			client := &losesOnce{proxy: proxy, inLine: new(atomic.Bool), gone: gone}
			go func() {
				_, isNew, err := a.Claim(t.Context(), Caller{}, DefaultPool, "web", []Request{{Name: "waiter"}}, Wait{Longest: time.Minute, Abandoned: client.abandoned})
				created <- isNew
				ended <- err
			}()
			waits(t, direct, 1)
			client.inLine.Store(true)
			must(t, direct.Release(t.Context(), Caller{}, DefaultPool, "web", "holder", Proof{Secret: holder.Secret}))
			isNew, err := <-created, <-ended
			if gone {
				wantError(t, "the client is gone", err, ErrUnavailable)
				s, err := direct.Service(t.Context(), DefaultPool, "web")
				must(t, err)
				if s.Ports.Free != 1 {
					t.Errorf("the port of a client that is gone: %+v", s.Ports)
				}
				continue
			}
			must(t, err)
			if !isNew {
				t.Error("a port that its client never had is no new one")
			}
			must(t, direct.Release(t.Context(), Caller{}, DefaultPool, "web", "waiter", Proof{}))
		}
	})
}
