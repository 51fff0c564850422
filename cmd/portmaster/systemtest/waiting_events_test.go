//go:build !faults

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// waiter is a call in line.
type waiter struct {
	*replicas
	body   string
	answer chan reply // has its answer, when that is there
}

// startWaiting makes a call that waits, and returns when it is in line.
func (r *replicas) startWaiting(server int, route, body string) *waiter {
	r.t.Helper()
	w := &waiter{r, body, make(chan reply, 1)}
	before := r.inLine()
	go func() {
		w.answer <- r.send(r.t.Context(), server, request{method: "POST", path: route + "?wait=300s", body: body})
	}()
	eventually(r.t, body+" is in line", func() bool { return r.inLine() > before })
	return w
}

// await returns the answer, which should have one of some statuses.
func (w *waiter) await(status ...int) reply {
	w.t.Helper()
	select {
	case got := <-w.answer:
		if !slices.Contains(status, got.status) {
			w.t.Errorf("%s: %d %s (%s), want %d", w.body, got.status, got.code, got.detail, status)
		}
		return got
	case <-time.After(patience):
		w.t.Fatalf("%s has no answer", w.body)
		return reply{}
	}
}

// goesOn sees that a call still waits.
func (w *waiter) goesOn() {
	w.t.Helper()
	select {
	case got := <-w.answer:
		w.t.Fatalf("%s waits no more: %s (%s)", w.body, got.code, got.detail)
	default:
	}
}

// hold claims a port, or a block of ports that begins with it.
func (r *replicas) hold(port, count int) held {
	r.t.Helper()
	return r.must(201, 0, claimOf(fmt.Sprintf("holds-%d", port), fmt.Sprintf(`"port":%d,"count":%d`, port, count))).held
}

// claimOf is a claim of a name, with more in its body.
func claimOf(name, more string) request {
	return request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q,%s}`, name, more)}
}

// release gives back what somebody has.
func (r *replicas) release(server int, h held) {
	r.t.Helper()
	r.must(204, server, request{method: "DELETE", path: "/ports/" + h.Name, secret: h.Secret})
}

// A call that waits is told at once when the range is narrowed to less than it waits for. Those behind it are served.
func TestRangeIsNarrowedWhileCallsWait(t *testing.T) {
	const first = 27000
	r := startReplicas(t, 2, first, 10)
	r.hold(first, 4)
	block := r.startWaiting(0, "/ports", `{"name":"block","count":7}`)
	list := r.startWaiting(1, "/offers", `[{"name":"list-1","count":4},{"name":"list-2","count":4}]`)
	single := r.startWaiting(0, "/ports", `{"name":"single"}`)
	for _, w := range []*waiter{block, list, single} {
		w.goesOn()
	}
	narrowed := time.Now()
	r.must(200, 1, request{method: "PUT", body: fmt.Sprintf(`{"start":%d,"end":%d}`, first, first+5)})
	for field, w := range map[string]*waiter{"count": block, "body": list} {
		if got := w.await(400); got.code != "INVALID" || !slices.Equal(got.at, []string{field}) {
			t.Errorf("%s: %s at %q (%s)", w.body, got.code, got.at, got.detail)
		}
	}
	single.await(201)
	if took := time.Since(narrowed); took > 3*time.Second { // a line is looked at each 5 s in any case
		t.Errorf("they were told %s later", took)
	}
	r.awaitNobodyInLine()
}

// What a range can never have is refused at once, and keeps nobody from anything, whether it would wait or not.
func TestDemandBeyondTheRangeIsRefusedAtOnce(t *testing.T) {
	r := startReplicas(t, 2, 27100, 10)
	for _, route := range []string{"/ports", "/offers"} {
		for _, query := range []string{"", "?wait=300s"} {
			for body, field := range map[string]string{
				`{"name":"big","count":11}`:                             "count",
				`[{"name":"big"},{"name":"bigger","count":11}]`:         "[1].count",
				`[{"name":"half","count":6},{"name":"rest","count":6}]`: "body",
			} {
				got := r.must(400, 0, request{method: "POST", path: route + query, body: body})
				if got.code != "INVALID" || !slices.Equal(got.at, []string{field}) {
					t.Errorf("%s %s: %s at %q (%s)", route+query, body, got.code, got.at, got.detail)
				}
				r.release(1, r.must(201, 1, claimOf("small", `"count":10`)).held)
			}
		}
	}
	r.awaitNobodyInLine()
}

// While as many ports are free as a block waits for, but not in a row, others may have what is left beyond that number.
func TestFragmentationHoldsBackNobody(t *testing.T) {
	const first = 27200
	r := startReplicas(t, 2, first, 9)
	var between []held
	for port := first + 1; port < first+9; port += 2 {
		between = append(between, r.hold(port, 1))
	}
	block := r.startWaiting(0, "/ports", `{"name":"block","count":2}`)
	for i := range 3 { // of 5, and 2 are for the block
		r.must(201, i%2, claimOf(fmt.Sprintf("single-%d", i), `"count":1`))
	}
	if got := r.must(409, 1, claimOf("single-4", `"count":1`)); got.code != "EXHAUSTED" {
		t.Errorf("a port of those for the block: %s", got.code)
	}
	block.goesOn()
	last := r.startWaiting(1, "/ports", `{"name":"last"}`)
	r.release(1, between[3]) // beside the last port, which is free
	if got := block.await(201); got.Count != 2 || got.Port != first+7 && got.Port != first+6 {
		t.Errorf("the block has %+v", got.held)
	}
	last.await(201)
	r.awaitNobodyInLine()
}

// Blocks come to their turn although single ports are taken and given back beside them all the time.
func TestBlocksDoNotStarve(t *testing.T) {
	const first, ports, clients, blocks = 27300, 12, 16, 25
	r := startReplicas(t, 2, first, ports)
	done := make(chan struct{})
	var singles sync.WaitGroup
	var mu sync.Mutex
	seen := outcomes{}
	granted := func() int {
		mu.Lock()
		defer mu.Unlock()
		return seen["201"]
	}
	for id := range clients {
		singles.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(id)))
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(time.Duration(random.IntN(5)) * time.Millisecond):
				}
				name := fmt.Sprintf("single-%d-%d", id, n)
				got := r.send(t.Context(), n%2, claimOf(name, `"count":1`))
				mu.Lock()
				seen[got.code]++
				mu.Unlock()
				if got.status == 201 {
					time.Sleep(time.Duration(5+random.IntN(40)) * time.Millisecond)
					r.expect(204, id%2, request{method: "DELETE", path: "/ports/" + name, secret: got.Secret})
				}
			}
		})
	}
	var took []time.Duration
	passed := 0
	for i := range blocks {
		time.Sleep(50 * time.Millisecond)
		began, before := time.Now(), granted()
		answer := r.must(201, i%2, request{method: "POST", path: "/ports?wait=300s", body: fmt.Sprintf(`{"name":"block-%d","count":3}`, i)})
		took = append(took, time.Since(began))
		passed += granted() - before
		r.release(i%2, answer.held)
	}
	close(done)
	singles.Wait()
	t.Logf("%d blocks of 3 of %d ports, beside %d clients of single ones: p50 %s, the longest %s; %.1f single ports were given meanwhile",
		blocks, ports, clients, percentile(took, 0.5), percentile(took, 1), float64(passed)/blocks)
	if passed > 8*ports*blocks {
		t.Error("far too many singles pass a block")
	}
	seen.log(t)
	seen.need(t, "201\nEXHAUSTED")
	r.awaitNobodyInLine()
}

// One call more than may wait is refused. What can be served at once is served all the same.
func TestAsManyWaitAsMay(t *testing.T) {
	const most = 3
	r := startReplicas(t, 2, 27400, 2, fmt.Sprintf("PORTMASTER_MAX_WAITING=%d", most))
	other := r.define("other", 27500, 10)
	has := r.hold(27400, 2)
	var waiters []*waiter
	for i := range most {
		waiters = append(waiters, r.startWaiting(0, "/ports", fmt.Sprintf(`{"name":"waits-%d"}`, i)))
	}
	for _, route := range []string{"/ports", "/offers"} {
		got := r.must(429, 0, request{method: "POST", path: route + "?wait=300s", body: `{"name":"one-more"}`})
		if got.code != "TOO_MANY_WAITING" || got.retryAfter == "" {
			t.Errorf("%s, Retry-After %q: %s", got.code, got.retryAfter, got.detail)
		}
	}
	other.must(201, 0, request{method: "POST", path: "/ports?wait=300s", body: `{"name":"at-once"}`})
	elsewhere := r.startWaiting(1, "/ports", `{"name":"elsewhere"}`)
	r.release(0, has)
	first := waiters[0].await(201)
	waiters[1].await(201)
	waiters[2].goesOn()
	next := r.startWaiting(0, "/offers", `{"name":"next"}`)
	for _, w := range []*waiter{waiters[2], elsewhere, next} {
		r.release(1, first.held)
		if w != next {
			first = w.await(201)
		}
	}
	next.await(201)
	r.awaitNobodyInLine()
}
