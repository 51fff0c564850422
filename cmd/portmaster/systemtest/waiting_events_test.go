//go:build !faults

package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
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
		w.answer <- r.send(r.t.Context(), server, request{method: "POST", path: route + "?wait=60s", body: body})
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
		for _, query := range []string{"", "?wait=60s"} {
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
		answer := r.must(201, i%2, request{method: "POST", path: "/ports?wait=60s", body: fmt.Sprintf(`{"name":"block-%d","count":3}`, i)})
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
		got := r.must(429, 0, request{method: "POST", path: route + "?wait=60s", body: `{"name":"one-more"}`})
		if got.code != "TOO_MANY_WAITING" || got.retryAfter == "" {
			t.Errorf("%s, Retry-After %q: %s", got.code, got.retryAfter, got.detail)
		}
	}
	other.must(201, 0, request{method: "POST", path: "/ports?wait=60s", body: `{"name":"at-once"}`})
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

// processOf returns the process of a Redis.
func processOf(t *testing.T, store storetest.Store) int {
	t.Helper()
	found := regexp.MustCompile(`process_id:(\d+)`).FindStringSubmatch(store.Admin.Info(t.Context(), "server").Val())
	if found == nil {
		t.Fatal("Redis does not tell its process")
	}
	id, _ := strconv.Atoi(found[1])
	return id
}

// TestRedisIsAwayWhileCallsWait stops Redis for 2 s, just after ports came free for some of those who wait: all are served when
// it is back, whether they have a secret of their own or not. So are ports given back while it is away.
func TestRedisIsAwayWhileCallsWait(t *testing.T) {
	const first, ports = 27600, 24
	store, _, _ := storetest.Private(t)
	r := startReplicasOn(t, store, 3, first, ports)
	var holders []held
	for i := range ports {
		holders = append(holders, r.hold(first+i, 1))
	}
	var waiters []*waiter
	for i := range ports {
		own := ""
		if i%2 == 0 {
			own = fmt.Sprintf(`,"secret":%q`, uuid.NewString())
		}
		body := fmt.Sprintf(`{"name":"waits-%d"%s}`, i, own)
		waiters = append(waiters, r.startWaiting(i%3, []string{"/ports", "/ports", "/offers", "/offers"}[i%4], body))
	}
	redis := processOf(t, store)
	t.Cleanup(func() { syscall.Kill(redis, syscall.SIGCONT) })
	for _, h := range holders[:ports/3] {
		r.release(0, h)
	}
	if err := syscall.Kill(redis, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var releases sync.WaitGroup
	for i, h := range holders[ports/3 : 2*ports/3] {
		releases.Go(func() {
			request := request{method: "DELETE", path: fmt.Sprintf("/ports/%d", h.Port), secret: h.Secret}
			got := r.send(t.Context(), i%3, request)
			for ; got.status >= 500; got = r.send(t.Context(), i%3, request) {
				time.Sleep(50 * time.Millisecond)
			}
			if got.status != 204 {
				t.Errorf("%s is released: %s %s", h.Name, got.code, got.detail)
			}
		})
	}
	time.Sleep(2 * time.Second)
	back := time.Now()
	syscall.Kill(redis, syscall.SIGCONT)
	releases.Wait()
	for _, h := range holders[2*ports/3:] {
		r.release(1, h)
	}
	given := map[int]bool{}
	var all []held
	for i, w := range waiters {
		expected := []int{201}
		if i%2 == 0 {
			expected = append(expected, 200) // the server has made the call again, and cannot know that its client did not
		}
		got := w.await(expected...)
		if given[got.Port] {
			t.Errorf("port %d is given twice", got.Port)
		}
		given[got.Port] = true
		all = append(all, got.held)
	}
	t.Logf("all were served %s after Redis was back", time.Since(back).Round(time.Millisecond))
	r.awaitNobodyInLine()
	for _, h := range all {
		if h.Fence != 0 {
			r.expect(204, 2, request{method: "DELETE", path: "/ports/" + h.Name})
		} else {
			r.expect(204, 2, request{method: "DELETE", path: "/offers/" + h.Secret})
		}
	}
	r.checkNothingHeld()
}

// In a Cluster a message reaches a server wherever it listens: ports of pools on each node go from one server to another.
func TestLineInCluster(t *testing.T) {
	nodes := storetest.Cluster(t, 3)
	r := &replicas{t: t, client: newClient(t), service: "web"}
	for i := range 3 {
		at := "redis+cluster://" + url.UserPassword(storetest.User, storetest.Password).String() + "@" + nodes[i].Addr
		r.servers = append(r.servers, startPortmaster(t, fmt.Sprintf("portmaster-%d", i),
			"PORTMASTER_REDIS_URL="+at, "PORTMASTER_REDIS_TIMEOUT=5s", "PORTMASTER_LOG_LEVEL=debug"))
	}
	for _, server := range r.servers {
		server.awaitReady()
	}
	pools := make([]string, 24)
	used := map[int]bool{}
	for i := range pools {
		pools[i] = fmt.Sprintf("pool-%d", i)
		used[int(nodes[0].Admin.ClusterKeySlot(t.Context(), "{"+pools[i]+"}").Val())*3/16384] = true
	}
	if len(used) != 3 {
		t.Fatalf("the pools are on the nodes %v only", used)
	}
	var took []time.Duration
	for round := range 2 {
		took = append(took, r.handOver(pools, round)...)
	}
	t.Logf("%d ports were handed over across servers: p50 %s, p99 %s", len(took), percentile(took, 0.5), percentile(took, 0.99))
	if got := percentile(took, 0.5); got > 150*time.Millisecond {
		t.Errorf("half of the ports took longer than %s: beats find that a port came free, and not messages", got)
	}
	for _, node := range nodes {
		node.NothingRefused(t)
	}
	for _, server := range r.servers {
		storetest.NoPasswordIn(t, server.text())
	}
}

// handOver lets a call wait in each pool, on one server, and gives the port back on another: how long each took.
func (r *replicas) handOver(pools []string, round int) (took []time.Duration) {
	r.t.Helper()
	of := func(pool string) *replicas {
		in := *r
		in.pool = pool
		return &in
	}
	var answered sync.WaitGroup
	at := make([]time.Time, len(pools))
	for i, pool := range pools {
		of(pool).must([]int{201, 200}[round], 0, request{method: "PUT", body: `{"start":5000,"end":5000}`})
		of(pool).must(201, 0, request{method: "POST", path: "/ports", body: `{"name":"has"}`})
		answered.Go(func() {
			got := of(pool).send(context.Background(), i%3, request{method: "POST", path: "/ports?wait=30s", body: `{"name":"waits"}`})
			at[i] = time.Now()
			if got.status != 201 {
				r.t.Errorf("%s: %d %s (%s)", pool, got.status, got.code, got.detail)
			}
		})
		eventually(r.t, pool+" has a line", func() bool {
			var service struct{ Waiting int }
			of(pool).get(2, "", &service)
			return service.Waiting == 1
		})
	}
	released := make([]time.Time, len(pools))
	for i, pool := range pools {
		released[i] = time.Now()
		of(pool).must(204, (i+1+round)%3, request{method: "DELETE", path: "/ports/has"})
	}
	answered.Wait()
	for i, pool := range pools {
		took = append(took, at[i].Sub(released[i]))
		of(pool).must(204, 1, request{method: "DELETE", path: "/ports/waits"})
	}
	return took
}
