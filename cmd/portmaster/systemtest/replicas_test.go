//go:build !faults

package systemtest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

// replicas are servers on one Redis, and a client of theirs. What they are asked is about one service.
type replicas struct {
	t            *testing.T
	store        storetest.Store
	servers      []*replica
	client       *http.Client
	pool         string // "" is the default one
	service      string
	first, ports int // the service's range
}

// startReplicas starts servers on the real Redis, and defines the service.
func startReplicas(t *testing.T, servers, first, ports int, settings ...string) *replicas {
	t.Helper()
	return startReplicasOn(t, storetest.Redis(t), servers, first, ports, settings...)
}

// startReplicasOn starts servers on a store, and defines the service.
func startReplicasOn(t *testing.T, store storetest.Store, servers, first, ports int, settings ...string) *replicas {
	t.Helper()
	r := &replicas{t: t, store: store, client: newClient(t)}
	patient := []string{"PORTMASTER_REDIS_TIMEOUT=20s", "PORTMASTER_MAX_WAIT=5m"} // since a busy machine says nothing of the servers
	for i := range servers {
		r.servers = append(r.servers, startPortmaster(t, fmt.Sprintf("portmaster-%d", i), slices.Concat(r.store.Settings(), patient, settings)...))
	}
	for _, server := range r.servers {
		server.awaitReady()
	}
	err := r.store.Admin.Set(t.Context(), r.store.Prefix+":{default}:fence", fencesBefore, 0).Err()
	if err != nil {
		t.Fatal(err)
	}
	return r.define("web", first, ports)
}

// newClient returns a client that keeps as many connections as it once needed.
func newClient(t *testing.T) *http.Client {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// fencesBefore is the last fence before a test begins. It is beyond the time, so that fences count how many were given.
const fencesBefore = 4e15

// allocated is how many allocations were ever made.
func (r *replicas) allocated() int {
	r.t.Helper()
	last, err := r.store.Admin.Get(context.Background(), r.store.Prefix+":{default}:fence").Int()
	if err != nil {
		r.t.Fatal(err)
	}
	return last - fencesBefore
}

// define defines a service. What comes back is asked about that.
func (r *replicas) define(service string, first, ports int) *replicas {
	r.t.Helper()
	of := *r
	of.service, of.first, of.ports = service, first, ports
	of.must(201, 0, request{method: "PUT", body: fmt.Sprintf(`{"start":%d,"end":%d}`, first, first+ports-1)})
	return &of
}

// size is how many ports it is.
func (h held) size() int { return max(h.Count, 1) }

// addr is where the server listens, host:port.
func (r *replica) addr() string { return strings.TrimPrefix(r.url, "http://") }

// route is the service's own.
func (r *replicas) route() string {
	if r.pool == "" {
		return "/v1/services/" + r.service
	}
	return "/v1/pools/" + r.pool + "/services/" + r.service
}

// send makes a call to a server. Its code is the reason where no answer came.
func (r *replicas) send(ctx context.Context, server int, q request) reply {
	q.path = r.route() + q.path
	return q.send(ctx, r.client, r.servers[server].url)
}

// expect makes a call whose answer should have a status.
func (r *replicas) expect(status, server int, q request) (answer reply, as bool) {
	r.t.Helper()
	answer = r.send(r.t.Context(), server, q)
	if answer.status != status {
		r.t.Errorf("%s %s %s: %s (%s), want %d", q.method, q.path, q.body, answer.code, answer.detail, status)
	}
	return answer, answer.status == status
}

// must makes a call without whose answer the test cannot go on.
func (r *replicas) must(status, server int, q request) reply {
	r.t.Helper()
	answer, ok := r.expect(status, server, q)
	if !ok {
		r.t.FailNow()
	}
	return answer
}

// get reads an answer of a server, which is 200, into target.
func (r *replicas) get(server int, path string, target any) {
	r.t.Helper()
	response, err := visitor().Get(r.servers[server].url + r.route() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: status %d: %s %v", path, response.StatusCode, text, err)
	}
	if err := json.Unmarshal(text, target); err != nil {
		r.t.Fatal(err)
	}
}

// counts are how many ports of the service are what, and how many calls wait for one.
type counts struct{ Total, Free, Offered, Allocated, Cooling, Waiting int }

func (r *replicas) counts() counts {
	r.t.Helper()
	var service struct {
		Waiting int
		Ports   counts
	}
	r.get(0, "", &service)
	service.Ports.Waiting = service.Waiting
	return service.Ports
}

// key is the name of a key of the service.
func (r *replicas) key(of string) string { return r.poolKey(of) + ":" + r.service }

// poolKey is the name of a key of the service's pool.
func (r *replicas) poolKey(of string) string {
	return r.store.Prefix + ":{" + cmp.Or(r.pool, allocator.DefaultPool) + "}:" + of
}

// inLine is how many calls wait in the line.
func (r *replicas) inLine() int {
	r.t.Helper()
	n, err := r.store.Admin.ZCard(context.Background(), r.key("line")).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return int(n)
}

// awaitNobodyInLine waits until nobody has a place in the line.
func (r *replicas) awaitNobodyInLine() {
	r.t.Helper()
	eventually(r.t, "nobody is in line", func() bool {
		return r.store.Admin.Exists(context.Background(), r.key("line"), r.key("beats")).Val() == 0
	})
}

// checkNothingHeld finds what is left of offers, allocations and waiting calls, once all was given back and every port was
// handed out at least once.
func (r *replicas) checkNothingHeld() {
	t := r.t
	t.Helper()
	if got, want := r.counts(), (counts{Total: r.ports, Free: r.ports}); got != want {
		t.Errorf("after all was given back: %+v", got)
	}
	ctx := context.Background()
	for _, of := range []string{"names", "offers", "ports", "labels", "leases", "quarantine", "line", "beats"} {
		if r.store.Admin.Exists(ctx, r.key(of)).Val() != 0 {
			t.Errorf("there is still a key %s", r.key(of))
		}
	}
}

// outcomes counts what calls came to.
type outcomes map[string]int

func (o outcomes) log(t *testing.T) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(o)) {
		t.Logf("%6d %s", o[what], what)
	}
}

// need finds outcomes, one a line, that were never seen.
func (o outcomes) need(t *testing.T, what string) {
	t.Helper()
	for _, line := range o.unseen(what) {
		t.Errorf("%q was never seen: the clients do not fight enough", line)
	}
}

// unseen are those of some outcomes, one a line, that never came.
func (o outcomes) unseen(what string) (unseen []string) {
	for line := range strings.Lines(what) {
		if line = strings.TrimSpace(line); line != "" && o[line] == 0 {
			unseen = append(unseen, line)
		}
	}
	return unseen
}
