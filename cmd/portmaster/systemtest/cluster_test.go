//go:build faults

package systemtest

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// movedSlots is how many slots move: the last ones.
const movedSlots = 100

// TestCluster lets the masters of a Redis Cluster change, die and hand over slots, under one load in many pools. A change
// is answered when the replica of its master has it, so nothing that was acknowledged may be lost.
func TestCluster(t *testing.T) {
	const shards = 3
	c := startCluster(t, shards)
	u := &upheaval{cluster: c, moved: c.poolsIn(slots-movedSlots, slots-1, 6)}
	u.pools = slices.Clone(u.moved)
	for i := range shards {
		u.pools = append(u.pools, c.poolsIn(slots*i/shards, slots*(i+1)/shards-movedSlots-1, 4)...)
	}
	var replicas []*replica
	for i := range 3 {
		replicas = append(replicas, startPortmaster(t, fmt.Sprintf("portmaster-%d", i),
			"PORTMASTER_REDIS_URL="+c.url(), "PORTMASTER_DURABILITY=replicated:1"))
	}
	for _, r := range replicas {
		r.awaitReady()
	}
	var services []service
	for _, pool := range u.pools {
		services = append(services, service{pool, "web"})
		define(t, replicas[0].url, service{pool, "web"}, 5000, 5199)
	}
	work := startLoad(t, &u.ledger, loadOptions{
		servers: urls(replicas), services: services, clients: 2 * len(services), held: 5, pause: 100 * time.Millisecond,
	})
	u.awaitWrites(5)

	reports := []string{
		u.report("planned failover", u.plannedFailover),
		u.report("kill -9 of a master", u.killedMaster),
		u.report(fmt.Sprintf("%d slots moved", movedSlots), u.slotsOnTheirWay),
	}
	work.stop()

	states := readStates(t, replicas[0].url, services...)
	found := check(u.ledger.all(), states, rules{})
	for _, report := range reports {
		t.Log(report)
	}
	t.Log("all in all: " + u.ledger.figures().line(found))
	found.requireNone(t)
	giveBack(t, replicas[1].url, &u.ledger, states).requireNone(t)
}

// upheaval is what happens to a Cluster under load.
type upheaval struct {
	cluster *cluster
	ledger  ledger
	pools   []string
	moved   []string // those in the slots that move
}

// report lets a fault happen, waits until every pool is written to again, and says in one line what the clients met. What
// happens says which pools it was about, and how it went.
func (u *upheaval) report(name string, happen func() (about []string, how string)) string {
	u.cluster.t.Helper()
	began := time.Now()
	about, how := happen()
	u.awaitWrites(10)
	met := u.since(began, u.pools).figures()
	affected, others := u.longestGaps(began, about)
	return fmt.Sprintf("%s: %s; %d calls, %d allocations acknowledged, %d unavailable, %d unknown, longest time without a successful write in one of the %d pools that it was about %s, in another one %s (%s)",
		name, how, met.calls, met.acknowledged, met.unavailable, met.unknown, len(about),
		affected.Round(time.Millisecond), others.Round(time.Millisecond), met.list())
}

// plannedFailover makes the replica of the first slots their master.
func (u *upheaval) plannedFailover() (about []string, how string) {
	t := u.cluster.t
	t.Helper()
	s := u.cluster.shardOf(0)
	if n := s.replica.scripts(); n != 0 {
		t.Errorf("the master to come knows %d scripts already", n)
	}
	u.cluster.failOver(s)
	u.cluster.awaitSettled()
	u.awaitWrites(5)
	if s.replica.scripts() == 0 {
		t.Error("the new master knows no script: nobody called it")
	}
	return u.poolsOf(s), fmt.Sprintf("the new master knew no script, and was told %d", s.replica.scripts())
}

// killedMaster kills the master of the slots in the middle, and brings it back once its replica has taken its place. As
// long as that one has no replica, nothing may be answered as done.
func (u *upheaval) killedMaster() (about []string, how string) {
	t := u.cluster.t
	t.Helper()
	s := u.cluster.shardOf(slots / 2)
	about = u.poolsOf(s)
	s.master.kill()
	killed := time.Now()
	s.replica.awaitMaster()
	promoted := time.Now()
	eventually(t, "in all of its pools a call has an unknown outcome", func() bool {
		calls := u.since(promoted, about).calls
		return !slices.ContainsFunc(about, func(pool string) bool {
			return !slices.ContainsFunc(calls, func(c call) bool { return c.service.pool == pool && c.unknown() })
		})
	})
	back := time.Now()
	s.master.restart()
	u.cluster.awaitSettled()
	settled := time.Since(back)

	for _, call := range u.since(killed, about).all() {
		if call.end.Before(back) && call.acknowledged() {
			t.Errorf("no replica can have had it: %v", call)
		}
	}
	if affected, others := u.longestGaps(killed, about); affected <= others {
		t.Errorf("a pool of another master was without a write for longer (%s) than those of the dead one (%s)", others, affected)
	}
	return about, fmt.Sprintf("its replica was the master after %s, and had a replica %s after the start of that one",
		promoted.Sub(killed).Round(time.Millisecond), settled.Round(time.Millisecond))
}

// slotsOnTheirWay moves the last slots to the master of the first ones, and takes its time where a pool is in one.
func (u *upheaval) slotsOnTheirWay() (about []string, how string) {
	t := u.cluster.t
	t.Helper()
	from, to := u.cluster.shardOf(slots-1).master, u.cluster.shardOf(0).master
	pauses := map[int]time.Duration{}
	for i, pool := range u.moved {
		pauses[u.cluster.slotOf(pool)] = time.Duration(1+i%3) * 40 * time.Millisecond
	}
	codes := []string{"ASK", "TRYAGAIN", "MOVED"}
	before := map[string]int{}
	for _, code := range codes {
		before[code] = from.refusals(code) + to.refusals(code)
	}
	began := time.Now()
	for slot := slots - movedSlots; slot < slots; slot++ {
		u.cluster.move(slot, from, to, 10, pauses[slot])
	}
	how = fmt.Sprintf("in %s", time.Since(began).Round(time.Millisecond))
	u.cluster.awaitSettled()

	for _, code := range codes {
		met := from.refusals(code) + to.refusals(code) - before[code]
		if met == 0 {
			t.Errorf("no call met %s", code)
		}
		how += fmt.Sprintf(", %d met %s", met, code)
	}
	if s := u.cluster.shardOf(slots - 1); s.master != to || s.from != slots-movedSlots {
		t.Errorf("the slots from %d on are at %s", s.from, s.master.addr)
	}
	return u.moved, how
}

// awaitWrites waits until n more calls have been acknowledged in every pool.
func (u *upheaval) awaitWrites(n int) {
	u.cluster.t.Helper()
	u.ledger.mu.Lock()
	before := len(u.ledger.calls)
	u.ledger.mu.Unlock()
	eventually(u.cluster.t, "every pool is written to", func() bool {
		u.ledger.mu.Lock()
		defer u.ledger.mu.Unlock()
		written := map[string]int{}
		for _, c := range u.ledger.calls[before:] {
			if c.acknowledged() {
				written[c.service.pool]++
			}
		}
		return !slices.ContainsFunc(u.pools, func(pool string) bool { return written[pool] < n })
	})
}

// since returns a ledger of the calls in some pools that began after a moment.
func (u *upheaval) since(moment time.Time, pools []string) *ledger {
	return &ledger{calls: slices.DeleteFunc(u.ledger.all(), func(c call) bool {
		return c.start.Before(moment) || !slices.Contains(pools, c.service.pool)
	})}
}

// longestGaps returns for how long one pool at most was without a successful write since a moment: one of some, and one of
// the others.
func (u *upheaval) longestGaps(since time.Time, of []string) (some, others time.Duration) {
	for _, pool := range u.pools {
		gap := u.since(since, []string{pool}).figures().longestGap
		if slices.Contains(of, pool) {
			some = max(some, gap)
		} else {
			others = max(others, gap)
		}
	}
	return some, others
}

// poolsOf returns the pools that a shard has.
func (u *upheaval) poolsOf(s shard) (pools []string) {
	u.cluster.t.Helper()
	for _, pool := range u.pools {
		if slot := u.cluster.slotOf(pool); s.from <= slot && slot <= s.to {
			pools = append(pools, pool)
		}
	}
	return pools
}
