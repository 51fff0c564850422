//go:build !faults

package systemtest

import (
	"testing"
	"time"
)

// TestFiveHundredWait lets 500 calls wait on three servers for 10 ports that turn over. They are served in the order in
// which they came, as far as ports that come free together allow; nobody who comes later gets a port before them.
func TestFiveHundredWait(t *testing.T) {
	const callers, ports = 500, 10
	q := newQueue(startReplicas(t, 3, 22000, ports))
	q.takeAll()
	for range callers {
		q.join()
	}
	if got := q.counts().Waiting; got != callers {
		t.Errorf("the service says that %d wait, not %d", got, callers)
	}
	began := time.Now()
	q.open()
	refused := q.newcomers()
	q.served.Wait()
	t.Logf("%d calls were served in %s, and %d newcomers were refused", callers, time.Since(began).Round(time.Millisecond), refused)
	q.checkServed()
	q.checkOrder()
	q.logTurnover()
	q.awaitNobodyInLine()
	q.checkNothingHeld()
}

// checkServed finds callers that were not served, or twice, and ports that two had at a time.
func (q *queue) checkServed() {
	q.t.Helper()
	for _, c := range q.callers {
		if c.got.Fence == 0 {
			q.t.Errorf("%s was not served: %s", c.name, c.got.code+" "+c.got.detail)
		}
	}
	if got := q.allocated(); got != q.ports+len(q.callers) {
		q.t.Errorf("%d ports were given to %d callers, and before to %d others", got, len(q.callers), q.ports)
	}
	if len(q.holds) != q.ports+len(q.callers) {
		q.t.Errorf("%d of %d gave their port back", len(q.holds), q.ports+len(q.callers))
	}
	checkHeldByOne(q.t, q.holds)
}

// checkOrder finds callers that were overtaken: the fences, which Redis gives in the order of the allocations, are in the
// order of the callers, which is that in which they joined the line.
func (q *queue) checkOrder() {
	q.t.Helper()
	for i, c := range q.callers[1:] {
		if before := q.callers[i]; c.got.Fence <= before.got.Fence {
			q.t.Errorf("%s has fence %d, and %s, who came before it, %d", c.name, c.got.Fence, before.name, before.got.Fence)
		}
	}
}

// logTurnover tells how long it takes from a call that releases a port to the answer of who has it next.
func (q *queue) logTurnover() {
	of := map[int64]turn{}
	for _, turn := range q.turns {
		of[turn.fence] = turn
	}
	var took []time.Duration
	for _, holders := range byPort(q.holds) {
		for i, h := range holders[1:] {
			took = append(took, of[h.fence].answered.Sub(of[holders[i].fence].released))
		}
	}
	q.t.Logf("from the release of a port to the answer of the next who has it: p50 %s, p99 %s", percentile(took, 0.5), percentile(took, 0.99))
}
