//go:build !faults

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestEveryCallTwice makes each call twice, as a client does that never heard the answer to the first. Nothing is done a
// second time: what Redis has in the end is just what the clients think that they have.
func TestEveryCallTwice(t *testing.T) {
	const (
		clients, waiters = 10, 4
		calls            = 10_000
		seed             = 3
	)
	r := startReplicas(t, 3, 30000, 4000, "PORTMASTER_QUARANTINE=1h")
	tight := r.define("tight", 35000, 2)
	var made atomic.Int64
	var mu sync.Mutex
	seen, has := outcomes{}, belongings{}
	var all sync.WaitGroup
	for id := range clients + waiters {
		all.Go(func() {
			c := &repeater{replicas: r, id: id, random: rand.New(rand.NewPCG(seed, uint64(id))), seen: outcomes{}}
			act := c.act
			if id >= clients {
				c.replicas, act = tight, c.waitAndRelease
			}
			for made.Load() < calls && !t.Failed() {
				made.Add(2)
				act()
			}
			mu.Lock()
			defer mu.Unlock()
			has.add(c.belongings)
			for what, n := range c.seen {
				seen[what] += n
			}
		})
	}
	all.Wait()
	seen.log(t)
	if t.Failed() {
		return
	}
	seen.need(t, `
		offer
		offer of a port
		offer of any, best this
		offer of a block
		offer for a lease
		offer of many
		claim
		claim of a port
		claim of any, best this
		claim of a block
		claim for a lease
		claim of many
		claim of an offer
		claim in line
		claim long after
		accept
		accept for a lease
		reject
		reject in use
		renew
		renew as before
		release
		release in use
		release before another claimed the name`)
	t.Logf("the clients have %d offers and allocations, of %d allocations that were made", len(has.kept), has.fences)
	r.checkState(has)
	tight.awaitNobodyInLine()
	tight.checkNothingHeld()
}

// belongings are what a client thinks that it has.
type belongings struct {
	kept    []*belonging
	fences  int          // how many allocations were made for it
	keptOut map[int]bool // the ports that it found in use
}

// belonging is an offer, which has no fence, or an allocation.
type belonging struct {
	held
	late bool // the call that renewed it last may have come once more than was heard
}

func (b *belongings) add(more belongings) {
	b.kept = append(b.kept, more.kept...)
	b.fences += more.fences
	for port := range more.keptOut {
		b.keepOut(port, 1)
	}
}

func (b *belongings) keepOut(first, count int) {
	if b.keptOut == nil {
		b.keptOut = map[int]bool{}
	}
	for port := first; port < first+count; port++ {
		b.keptOut[port] = true
	}
}

// find returns one of the offers, or of the allocations, which is nil where there is none.
func (c *repeater) find(allocated bool) *belonging {
	from := c.random.IntN(len(c.kept) + 1)
	for i := range c.kept {
		if b := c.kept[(from+i)%len(c.kept)]; (b.Fence != 0) == allocated {
			return b
		}
	}
	return nil
}

func (b belonging) String() string { return fmt.Sprintf("%+v", b.held) }
