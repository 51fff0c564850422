//go:build !faults

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// TestManyClients lets clients on three servers fight over few ports and few names. What each was told is one history:
// taken by port, by name, and by secret, there must be an order of the calls, each within the time that it took, in which
// every answer is right. In the end nothing may be left over.
func TestManyClients(t *testing.T) {
	t.Run("plain", func(t *testing.T) { fightFor(t, 50_000, `{"start":20000,"end":20049}`, 0, "") })
	t.Run("of all kinds", func(t *testing.T) {
		fightFor(t, 25_000, `{"ranges":[{"start":20000,"end":20019},{"start":20030,"end":20059}],"pick":"name","default_lease":1,"max_lease":1.3}`,
			1300, "offer for too long INVALID\nclaim for too long INVALID\naccept for too long INVALID")
	})
}

// fightFor lets clients fight over a service of 50 ports, whose longest lease is maxLease ms (0 for none). They must be told what
// mustBeSeen says, and more.
func fightFor(t *testing.T, calls int64, definition string, maxLease int64, more string) {
	const (
		clients      = 32
		ports, names = 50, 90
		seed         = 1
	)
	if storetest.Race {
		calls = calls * 3 / 10 // in which it meets each race often enough
	}
	f := &fight{
		replicas: startReplicas(t, 3, 20000, ports, "PORTMASTER_QUARANTINE="+quarantine.String()), names: names, maxLease: maxLease,
	}
	f.must(200, 0, request{method: "PUT", body: definition})
	var service struct{ Ranges []struct{ Start, End int } }
	f.get(0, "", &service)
	for port := f.first; len(f.all) < ports; port++ {
		if len(service.Ranges) == 0 || slices.ContainsFunc(service.Ranges, func(r struct{ Start, End int }) bool { return r.Start <= port && port <= r.End }) {
			f.all = append(f.all, port)
		}
	}
	var fighters []*fighter
	for id := range clients {
		fighters = append(fighters, &fighter{fight: f, id: id, random: rand.New(rand.NewPCG(seed, uint64(id)))})
	}
	start := time.Now()
	f.run(fighters, calls)
	for again := 0; again < 6 && !t.Failed() && len(f.outcomes().unseen(mustBeSeen+"\n"+more)) > 0; again++ {
		f.run(fighters, calls/2) // what is rare needs more calls on a slow machine
	}
	took := time.Since(start)
	t.Logf("seed %d: %d calls of %d clients in %s, %.0f a second", seed, f.made.Load(), clients, took, float64(f.made.Load())/took.Seconds())
	if t.Failed() {
		return // a server failed
	}
	seen := f.outcomes()
	seen.log(t)
	seen.need(t, mustBeSeen+"\n"+more)
	f.checkLinearizable()
	f.checkNothingLeft()
}

// quarantine is how long a port rests that is released as in use.
const quarantine = 150 * time.Millisecond

// fight is what the clients share.
type fight struct {
	*replicas
	names    int
	all      []int        // the ports of the service
	maxLease int64        // ms
	made     atomic.Int64 // calls

	mu      sync.Mutex
	history []event
	board   [64]*ticket // what was offered or claimed, for others to meddle with
	posted  int
	tickets []*ticket
}

// run lets the clients make so many more calls.
func (f *fight) run(fighters []*fighter, calls int64) {
	calls += f.made.Load()
	var all sync.WaitGroup
	for _, c := range fighters {
		all.Go(func() {
			for f.made.Load() < calls && !f.t.Failed() {
				c.act()
			}
		})
	}
	all.Wait()
	for _, c := range fighters {
		f.history = append(f.history, c.history...)
		c.history = nil
	}
}

// ticket is an offer or an allocation that a client got; the fence is 0 until it is accepted.
type ticket struct {
	secret, name string
	port, count  int
	job          string // its label, "" if it has none
	drawn        bool   // the secret is not the client's own, so that the server knows it by the allocation alone
	fence        atomic.Int64
}

// post lets others know of a ticket.
func (f *fight) post(t *ticket) {
	if t.secret == "" {
		return // it existed, and another has posted it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.board[f.posted%len(f.board)] = t
	f.posted++
	f.tickets = append(f.tickets, t)
}

// linesUp tells whether clients wait in line at this time of the fight. They take turns with times when none does, since
// only then must a port that is free be had by who asks for it.
func (f *fight) linesUp() bool { return f.made.Load()/2500%2 == 1 }

// event is what one call did, or found, about one name: one of several where the call was about many.
type event struct {
	act          string // offer, claim, existing (a claim that found what exists), accept, reject, renew, release, release own (by its secret)
	how          string // in which way: a heading for the figures
	client       int
	name, secret string // as far as they are known
	port, count  int    // the first port, and how many there are in a row; 0 is one
	impossible   bool   // it asks for more than there is, or for a longer lease
	align        int    // of what the first port is a multiple; 0 is any
	job, has     string // the label that it should have, and the one that it has
	inUse        bool   // what it releases is still in use
	byPort       bool   // renew, release: not by name
	drawn        bool   // the secret is known by the allocation alone
	foreign      bool   // renew, release own: the secret is somebody else's
	inLine       bool   // it waits, or may have met a call that did
	condition    int64
	lease        int64 // ms, as it was asked for
	code         string
	fence        int64 // of the allocation
	expires      int64 // Unix ms, when its lease ends; 0 is never
	call, ret    int64 // Unix ns
}

// ports are those that an event is about.
func (e event) ports() []int {
	all := []int{e.port}
	for i := 1; i < e.count; i++ {
		all = append(all, e.port+i)
	}
	return all
}

// outcomes counts what the clients were told.
func (f *fight) outcomes() outcomes {
	seen := outcomes{}
	for _, e := range f.history {
		seen[e.act+" "+e.code]++
		if e.how != "" {
			seen[e.act+" "+e.how+" "+e.code]++
		}
	}
	return seen
}

// mustBeSeen is what the clients should have been told at least once.
const mustBeSeen = `
	offer 201
	offer 200
	offer NAME_TAKEN
	offer EXHAUSTED
	offer OFFER_REJECTED
	offer for a lease 201
	offer of a port 201
	offer of a port PORT_TAKEN
	offer of any, best this 201
	offer of a block 201
	offer of a block EXHAUSTED
	offer of a block, in line 201
	offer of a block, in line EXHAUSTED
	offer of too many INVALID
	offer of too many, in line INVALID
	offer of a multiple 201
	offer of many 201
	offer of many 200
	offer of many NAME_TAKEN
	offer of many PORT_TAKEN
	offer of many EXHAUSTED
	offer in line 201
	offer in line EXHAUSTED
	claim 201
	claim 200
	claim NAME_TAKEN
	claim EXHAUSTED
	claim of an offer 201
	claim of an offer 200
	claim of an offer OFFER_REJECTED
	claim again OFFER_ACCEPTED
	claim for a lease 201
	claim of what exists 201
	existing of what exists 200
	claim of a port 201
	claim of a port PORT_TAKEN
	claim of any, best this 201
	claim of a block 201
	claim of a block EXHAUSTED
	claim of a block, in line 201
	claim of a multiple 201
	claim of too many INVALID
	claim of too many, in line INVALID
	claim of many 201
	claim of many 200
	claim of many, in line 201
	claim in line 201
	claim in line EXHAUSTED
	accept 201
	accept 200
	accept for a lease 201
	accept OFFER_REJECTED
	accept OFFER_NOT_FOUND
	reject 204
	reject OFFER_ACCEPTED
	renew 200
	renew INVALID
	renew PORT_NOT_FOUND
	renew with another secret SECRET_MISMATCH
	renew in time 200
	renew too late PORT_NOT_FOUND
	release 204
	release in use 204
	release PORT_NOT_FOUND
	release PRECONDITION_FAILED
	release own 204
	release own again 204
	release own PORT_NOT_FOUND
	release own SECRET_MISMATCH`

// sizeOf is how many ports some offers, or allocations, are.
func sizeOf(all []held) (ports int) {
	for _, h := range all {
		ports += h.size()
	}
	return ports
}

// checkNothingLeft gives everything back, takes every port once more, and gives that back, too.
func (f *fight) checkNothingLeft() {
	t := f.t
	t.Helper()
	var last int64
	for _, e := range f.history {
		last = max(last, e.expires)
	}
	time.Sleep(max(quarantine+time.Millisecond, time.Until(time.UnixMilli(last))))
	f.awaitNobodyInLine()

	var offers, allocations []held
	f.get(0, "/offers", &offers)
	f.get(0, "/ports", &allocations)
	if p := f.counts(); p.Total != f.ports || p.Free+p.Offered+p.Allocated != f.ports || p.Offered != sizeOf(offers) || p.Allocated != sizeOf(allocations) {
		t.Errorf("%+v, and %d offers and %d allocations are listed", p, len(offers), len(allocations))
	}
	listed := map[int]bool{}
	for _, held := range slices.Concat(offers, allocations) {
		for port := held.Port; port < held.Port+held.size(); port++ {
			if listed[port] {
				t.Errorf("port %d is held twice", port)
			}
			listed[port] = true
		}
	}
	for _, a := range allocations {
		if a.Labels.Job != "" { // those that have the same go together
			f.must(200, 2, request{method: "DELETE", path: "/ports?label=job=" + a.Labels.Job})
		}
	}
	allocations = nil
	f.get(1, "/ports", &allocations)
	if slices.ContainsFunc(allocations, func(a held) bool { return a.Labels.Job != "" }) {
		t.Errorf("of those that were released by their labels there are %+v", allocations)
	}
	for _, ticket := range f.tickets {
		f.send(t.Context(), 1, request{method: "DELETE", path: "/offers/" + ticket.secret})
	}
	for _, a := range allocations {
		f.must(204, 2, request{method: "DELETE", path: fmt.Sprintf("/ports/%d", a.Port), fence: a.Fence})
	}

	taken := map[int]string{}
	for i := range f.ports {
		got := f.must(201, i%3, request{method: "POST", path: "/offers", body: fmt.Sprintf(`{"name":"last-%d"}`, i)})
		if taken[got.Port] != "" || !slices.Contains(f.all, got.Port) {
			t.Errorf("offer %d is of port %d", i, got.Port)
		}
		taken[got.Port] = got.Secret
	}
	one := f.send(t.Context(), 0, request{method: "POST", path: "/offers", body: `{"name":"one-too-many"}`})
	if one.code != "EXHAUSTED" {
		t.Errorf("one port more than there are: %s", one.code)
	}
	for _, secret := range taken {
		f.must(204, 0, request{method: "DELETE", path: "/offers/" + secret})
	}
	f.checkNothingHeld()
}
