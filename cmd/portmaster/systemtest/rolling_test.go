//go:build faults

package systemtest

import (
	"testing"
	"time"
)

// rounds is how often each server is restarted.
const rounds = 5

// startRolling starts servers behind HAProxy, and 64 clients that each keep one connection to it.
func startRolling(t *testing.T) (*scenario, *balancer) {
	t.Helper()
	s := newScenario(t)
	s.startReplicas(s.node.addr)
	b := startBalancer(t, s.replicas)
	s.startLoad([]string{b.url}, 64, 150*time.Millisecond)
	return s, b
}

// TestRollingRestart ends each server with SIGTERM and starts it again, one after the other, as an upgrade does. No request
// fails, and no client needs a new connection.
func TestRollingRestart(t *testing.T) {
	s, _ := startRolling(t)
	for range rounds {
		for _, r := range s.replicas {
			if code := r.terminate(); code != 0 {
				t.Errorf("%s: exit code %d after SIGTERM", r.command.name, code)
			}
			r.restart()
		}
	}
	figures := s.end(rules{})
	failed, connections := figures.unavailable+figures.unknown, s.load.connections.Load()
	t.Logf("%d restarts, %d of %d calls failed, on %d connections", rounds*len(s.replicas), failed, figures.calls, connections)
	if failed > 0 || connections != 64 {
		t.Errorf("%d calls failed, on %d connections", failed, connections)
	}
}

// TestReplicasKilled ends each server with SIGKILL and starts it again, one after the other. Only requests that were under way
// on it fail, and when they are repeated they get the answer that others got, or would have.
func TestReplicasKilled(t *testing.T) {
	s, b := startRolling(t)
	var kills []interval
	for round := range rounds {
		for _, r := range s.replicas {
			if round%2 == 0 { // Redis lets requests pile up, and does them when nobody is there any more to answer
				s.node.pause()
				time.Sleep(100 * time.Millisecond)
			}
			ups, downs := b.found("UP"), b.found("DOWN")
			start := time.Now()
			r.kill()
			kills = append(kills, interval{start, time.Now()})
			s.node.resume()
			b.await("it misses a server", func() bool { return b.found("DOWN") > downs })
			r.restart()
			b.await("it has all servers", func() bool { return b.found("UP") > ups })
			s.ledger.awaitWrites(t, 50)
		}
	}
	s.end(rules{network: true})
	checkKills(t, kills, s.ledger.all())
}

// interval is when something happened.
type interval struct{ start, end time.Time }

// checkKills finds calls that failed and were not under way when a server was killed, or were not answered later on.
func checkKills(t *testing.T, kills []interval, calls []call) {
	t.Helper()
	var met, failed, done int // calls under way when a server was killed, those that failed, those of them that had been done
	for i, c := range calls {
		meets := false
		for _, k := range kills {
			if c.start.Before(k.start) && c.end.After(k.start) {
				met++
			}
			meets = meets || c.start.Before(k.end.Add(slack)) && c.end.After(k.start)
		}
		if c.acknowledged() || c.refused() {
			continue
		}
		failed++
		if !meets {
			t.Errorf("no server was killed: %v", c)
		}
		if answer := repeated(c, calls[i+1:]); answer == nil {
			t.Errorf("never answered: %v", c)
		} else if answer.status == 200 {
			done++
		}
	}
	t.Logf("%d kills met %d calls, and %d failed; %d of these had been done, as their repeats were told", len(kills), met, failed, done)
	if failed == 0 || done == 0 || failed > met/2 { // each of the three servers has a third of the calls
		t.Errorf("of %d calls under way %d failed, and %d of these had been done", met, failed, done)
	}
}

// slack is how long after the end of a server HAProxy may take to see that its connections to it are gone.
const slack = 50 * time.Millisecond

// repeated returns the definite answer to a call that failed, among later ones.
func repeated(failed call, later []call) *call {
	for _, c := range later {
		if c.kind == failed.kind && c.secret == failed.secret && (c.acknowledged() || c.refused()) {
			return &c
		}
	}
	return nil
}
