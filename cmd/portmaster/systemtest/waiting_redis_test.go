//go:build !faults

package systemtest

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

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
