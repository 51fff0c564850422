package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

// replicas are servers on one Redis, and a client of theirs. What they are asked is about one service.
type replicas struct {
	t            *testing.T
	store        storetest.Store
	servers      []*program
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
	r := &replicas{t: t, store: store}
	r.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	t.Cleanup(r.client.CloseIdleConnections)
	for range servers {
		r.servers = append(r.servers, startProgram(t, append(r.store.Settings(), settings...)...))
	}
	err := r.store.Admin.Set(t.Context(), r.store.Prefix+":{default}:fence", fencesBefore, 0).Err()
	if err != nil {
		t.Fatal(err)
	}
	return r.define("web", first, ports)
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

// request is a call about the service.
type request struct {
	method, path, body string // path is what comes after the service's own
	secret             string // of the header Portmaster-Secret
	fence              int64  // of If-Match, where it is not 0
}

// reply is what the tests read of any answer. code is the problem's, or else the status.
type reply struct {
	status     int // 0 where no answer came
	code       string
	retryAfter string
	held
	list   []held // where the answer is an array
	at     []string
	detail string
}

// held is an offer or an allocation.
type held struct {
	Name, Secret     string
	Port, Count      int
	Fence            int64
	Created, Expires time.Time
}

// size is how many ports it is.
func (h held) size() int { return max(h.Count, 1) }

// route is the service's own.
func (r *replicas) route() string {
	if r.pool == "" {
		return "/v1/services/" + r.service
	}
	return "/v1/pools/" + r.pool + "/services/" + r.service
}

// send makes a call to a server. Its code is the reason where no answer came.
func (r *replicas) send(ctx context.Context, server int, q request) reply {
	call, err := http.NewRequestWithContext(ctx, q.method, "http://"+r.servers[server].addr+r.route()+q.path, strings.NewReader(q.body))
	if err != nil {
		return reply{code: err.Error()}
	}
	if q.body != "" {
		call.Header.Set("Content-Type", "application/json")
	}
	if q.secret != "" {
		call.Header.Set("Portmaster-Secret", q.secret)
	}
	if q.fence != 0 {
		call.Header.Set("If-Match", fmt.Sprintf(`"%d"`, q.fence))
	}
	response, err := r.client.Do(call)
	if err != nil {
		return reply{code: err.Error()}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{code: err.Error()}
	}
	return readReply(response, text)
}

func readReply(response *http.Response, text []byte) reply {
	answer := reply{status: response.StatusCode, code: strconv.Itoa(response.StatusCode), retryAfter: response.Header.Get("Retry-After")}
	var err error
	switch {
	case response.StatusCode >= 400:
		var problem struct {
			Code, Detail string
			Errors       []struct{ Field string }
		}
		err = json.Unmarshal(text, &problem)
		answer.code, answer.detail = problem.Code, problem.Detail
		for _, e := range problem.Errors {
			answer.at = append(answer.at, e.Field)
		}
	case bytes.HasPrefix(text, []byte("[")):
		err = json.Unmarshal(text, &answer.list)
	case len(text) > 0:
		err = json.Unmarshal(text, &answer.held)
	}
	if err != nil {
		return reply{code: fmt.Sprintf("%s: %v", text, err)}
	}
	return answer
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
	text := r.servers[server].must(r.t, 200, "GET", r.route()+path, "")
	if err := json.Unmarshal([]byte(text), target); err != nil {
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
	for _, of := range []string{"names", "offers", "ports", "leases", "quarantine", "line", "beats"} {
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
	for line := range strings.Lines(what) {
		if line = strings.TrimSpace(line); line != "" && o[line] == 0 {
			t.Errorf("%q was never seen: the clients do not fight enough", line)
		}
	}
}
