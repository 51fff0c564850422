//go:build faults

package systemtest

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// bound is how long it may take until every server writes again.
const bound = 10 * time.Second

// TestSentinel takes the master of a Sentinel group away, so that a replica becomes master, and gives it back; in each way
// once with each durability.
//
// With replicated:2 nothing that was acknowledged may be lost. As both of two replicas must have a change, none is
// acknowledged while one of the three nodes is away: not by the new master, which has one replica left, and not by the old
// one, though some servers still reach it. So what must take no longer than the bound is counted from the return of the
// old master, as the new one's replica.
//
// With local the Redis that is there is enough, so the bound is counted from the fault. The price is what this test must
// find, at least in one of the faults: acknowledged allocations that are lost.
func TestSentinel(t *testing.T) {
	runs, losses := 0, 0
	for _, f := range masterFaults {
		t.Run(f.name+", local", func(t *testing.T) {
			s := f.happen(t, "local")
			runs++
			losses += s.found.count(lost)
			s.found.only(unexpected, network).requireNone(t)
			s.requireWrites(t, s.began)
		})
		t.Run(f.name+", replicated:2", func(t *testing.T) {
			s := f.happen(t, "replicated:2")
			s.found.requireNone(t)
			s.requireWrites(t, s.ended)
			s.requireNoneAcknowledged(t)
			giveBack(t, s.group.servers[0].url, &s.ledger, s.states).requireNone(t)
		})
	}
	if runs == len(masterFaults) && losses == 0 {
		t.Error("with local nothing was lost: these faults prove nothing")
	}
}

// masterFault is a way in which a group is without its master for a while.
type masterFault struct {
	name       string
	begin, end func(g *sentinelGroup)
}

var masterFaults = []masterFault{
	{
		name:  "master cut off",
		begin: func(g *sentinelGroup) { g.lan.cutOff(g.nodeHosts[0], g.serverHosts[0]) },
		end:   func(g *sentinelGroup) { g.lan.heal() },
	},
	{
		name:  "master and a replica cut off",
		begin: func(g *sentinelGroup) { g.lan.cutOff(g.nodeHosts[0], g.nodeHosts[1], g.serverHosts[0]) },
		end:   func(g *sentinelGroup) { g.lan.heal() },
	},
	{
		name:  "master paused",
		begin: func(g *sentinelGroup) { g.nodes[0].pause() },
		end:   func(g *sentinelGroup) { g.nodes[0].resume() },
	},
	{
		name:  "master killed",
		begin: func(g *sentinelGroup) { g.nodes[0].kill() },
		end:   func(g *sentinelGroup) { g.nodes[0].restart() },
	},
}

// failover is what was seen of a fault.
type failover struct {
	group    *sentinelGroup
	ledger   ledger
	began    time.Time // the fault is there
	switched time.Time // the Sentinels name another master
	ended    time.Time // the fault goes
	states   map[service]state
	found    findings
}

// happen runs a scenario: a group under load, the fault, and some more load after it.
func (f masterFault) happen(t *testing.T, durability string) *failover {
	t.Helper()
	s := &failover{group: startSentinelGroup(t, durability)}
	g := s.group
	define(t, g.servers[0].url, staying, 5000, 9999)
	define(t, g.servers[0].url, roaming, 10000, 14999)
	stop := startClients(t, &s.ledger, urls(g.servers))
	s.ledger.awaitWrites(t, 1000)
	if g.master() != g.nodes[0].addr {
		t.Fatal("the master was replaced before anything happened to it")
	}

	f.begin(g)
	s.began = time.Now()
	eventually(t, "the Sentinels name another master", func() bool { m := g.master(); return m != "" && m != g.nodes[0].addr })
	s.switched = time.Now()
	time.Sleep(2 * time.Second)
	s.ended = time.Now()
	f.end(g)
	g.awaitReplicas(g.master())
	for _, server := range g.servers {
		define(t, server.url, staying, 5000, 9999) // it writes again
	}
	s.ledger.awaitWrites(t, 500)
	stop()

	s.states = readStates(t, g.servers[0].url, staying, roaming)
	s.found = check(s.ledger.all(), s.states, rules{})
	t.Logf("%s, %s: %s", f.name, durability, s.line())
	t.Log(s.ledger.figures().line(s.found))
	return s
}

// The services of the two halves of the clients.
var (
	staying = service{"default", "staying"}
	roaming = service{"default", "roaming"}
)

// startClients lets clients call until the returned function is called. One half stays with its server, also with one that is
// cut off. The other half asks all in turn, and so meets both sides of a cut with the same secret.
func startClients(t *testing.T, l *ledger, servers []string) (stop func()) {
	t.Helper()
	o := loadOptions{servers: servers, services: []service{staying}, sticky: true, clients: 6, held: 20, pause: 10 * time.Millisecond}
	stay := startLoad(t, l, o)
	o.services, o.sticky = []service{roaming}, false
	roam := startLoad(t, l, o)
	return func() {
		stay.stop()
		roam.stop()
	}
}

// requireWrites fails the test where a server acknowledged no call for longer than the bound, from since on.
func (s *failover) requireWrites(t *testing.T, since time.Time) {
	t.Helper()
	for i, gap := range s.gaps(since) {
		if gap > bound {
			t.Errorf("server%d acknowledged no call for %s", i, gap)
		}
	}
}

// gaps returns for each server the longest time in which it acknowledged no call, from since on.
func (s *failover) gaps(since time.Time) (gaps []time.Duration) {
	calls := s.ledger.all()
	for _, server := range s.group.servers {
		moments := []time.Time{since}
		for _, c := range calls {
			if c.server == server.url && c.acknowledged() && c.end.After(since) {
				moments = append(moments, c.end)
			}
		}
		gaps = append(gaps, longestGap(append(moments, calls[len(calls)-1].end)))
	}
	return gaps
}

// requireNoneAcknowledged fails the test where a server acknowledged a call during the fault, or got none.
func (s *failover) requireNoneAcknowledged(t *testing.T) {
	t.Helper()
	got := map[string]int{}
	for _, c := range s.ledger.all() {
		if c.start.Before(s.began) || c.end.After(s.ended) {
			continue
		}
		got[c.server]++
		if c.acknowledged() {
			t.Errorf("acknowledged, and no master had two replicas: %v", c)
		}
	}
	if len(got) < len(s.group.servers) {
		t.Errorf("not every server got calls during the fault: %v", got)
	}
}

// line is what the table of faults in deployments/README.md is made of.
func (s *failover) line() string {
	return fmt.Sprintf("%d allocations acknowledged, %d of them lost, %d ports with two holders; another master after %s; "+
		"no call acknowledged for %s after the fault, for %s after its end",
		s.ledger.figures().acknowledged, s.found.count(lost), s.found.count(twoHolders), s.switched.Sub(s.began).Round(time.Millisecond),
		slices.Max(s.gaps(s.began)).Round(time.Millisecond), slices.Max(s.gaps(s.ended)).Round(time.Millisecond))
}
