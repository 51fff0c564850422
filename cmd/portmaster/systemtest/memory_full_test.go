//go:build faults

package systemtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestMemoryFull fills the memory of a Redis under load. Who holds a port can renew, accept, reject and release, and is told so;
// who wants one is told why not. When there is memory again, all goes on by itself.
func TestMemoryFull(t *testing.T) {
	for _, durability := range []string{"local", "replicated:1"} {
		t.Run(durability, func(t *testing.T) {
			t.Parallel()
			fillMemory(t, durability)
		})
	}
}

func fillMemory(t *testing.T, durability string) {
	s := newScenario(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(s.node.addr)
	follower := startRedis(t, redisOptions{name: "replica", fsync: "no", args: []string{"--replicaof", host, port}})
	eventually(t, "the replica follows", func() bool {
		return strings.Contains(follower.client.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	for i := range 3 {
		s.replicas = append(s.replicas, startPortmaster(t, fmt.Sprintf("portmaster-%d", i+1),
			"PORTMASTER_REDIS_URL=redis://"+s.node.addr, "PORTMASTER_DURABILITY="+durability))
	}
	for _, r := range s.replicas {
		r.awaitReady()
	}
	define(t, s.replicas[0].url, s.service, firstPort, lastPort)
	held := service{"default", "held"}
	define(t, s.replicas[0].url, held, 9000, 9099)
	s.startLoad(urls(s.replicas), 16, 5*time.Millisecond)

	server := func(n int) string { return s.replicas[n%3].url + held.path() }
	const each = 12 // of each kind
	secrets := map[string]string{}
	for i := range each {
		for kind, path := range map[string]string{"lease": "/ports", "plain": "/ports", "offer": "/offers", "reject": "/offers"} {
			name, lease := fmt.Sprintf("%s-%d", kind, i), ""
			if kind == "lease" {
				lease = `,"lease":"1h"`
			}
			status, answer := exchange(t, "POST", server(i)+path, `{"name":"`+name+`"`+lease+`}`)
			if secrets[name] = answer.Secret; status != http.StatusCreated {
				t.Fatalf("%s: %d %+v", name, status, answer)
			}
		}
	}

	fillRedis(t, s.node)
	for _, r := range s.replicas {
		eventually(t, r.command.name+" warns", func() bool {
			return metric(t, r.url, `portmaster_store_problem{problem="memory_full"}`) == "1" && metric(t, r.url, `portmaster_store_problem{problem="memory_low"}`) == "1"
		})
		if !r.ready() {
			t.Errorf("%s is not ready", r.command.name)
		}
	}
	began, before, slowest := time.Now(), s.ledger.figures(), time.Duration(0)
	must := func(what, method, path, body string, want int) {
		t.Helper()
		start := time.Now()
		status, answer := exchange(t, method, path, body)
		slowest = max(slowest, time.Since(start))
		if status != want || status >= 400 && (answer.code != "UNAVAILABLE" || !strings.HasPrefix(answer.detail, "Redis is full")) {
			t.Errorf("%s: %d %+v", what, status, answer)
		}
	}
	for i := range each {
		at, name := server(i), func(kind string) string { return fmt.Sprintf("%s-%d", kind, i) }
		must("renew", "POST", at+"/ports/"+name("lease")+"/renew", `{"secret":"`+secrets[name("lease")]+`"}`, 200)
		must("renew what had no lease", "POST", at+"/ports/"+name("plain")+"/renew", `{"secret":"`+secrets[name("plain")]+`","lease":"1h"}`, 200)
		must("accept", "POST", at+"/offers/"+secrets[name("offer")]+"/accept", "", 201)
		must("reject", "POST", at+"/offers/"+secrets[name("reject")]+"/reject", "", 204)
		must("a claim", "POST", at+"/ports", `{"name":"new"}`, 503)
		must("an offer", "POST", at+"/offers", `{"name":"new"}`, 503)
		must("a claim that would wait", "POST", at+"/ports?wait=50ms", `{"name":"new"}`, 503)
		must("a definition", "PUT", s.replicas[i%3].url+service{"default", "new"}.path(), `{"start":9500,"end":9599}`, 503)
		must("a release", "DELETE", at+"/ports/"+name("lease"), "", 204)
		must("another release", "DELETE", at+"/ports/"+name("plain"), "", 204)
	}
	time.Sleep(max(0, time.Until(began.Add(12*time.Second)))) // longer than a state may be behind
	during := s.ledger.figures()
	if during.unavailable == before.unavailable || during.unknown > before.unknown {
		t.Errorf("of the load %d calls were refused, and of %d the outcome is unknown", during.unavailable-before.unavailable, during.unknown-before.unknown)
	}
	for _, r := range s.replicas {
		if !r.ready() {
			t.Errorf("%s is not ready after some time", r.command.name)
		}
	}

	if err := s.node.client.Del(t.Context(), "filler").Err(); err != nil {
		t.Fatal(err)
	}
	s.ledger.awaitWrites(t, 300)
	after := readStates(t, s.replicas[0].url, held)[held]
	if after.ports.Allocated != each || after.ports.Offered != 0 {
		t.Errorf("of %d that were accepted and not released, %+v are held", each, after.ports)
	}
	s.end(rules{})
	checkRecords(t, s.node, held, 9000, 9099).only(torn).requireNone(t)
	t.Logf("%d calls of holders and %d of newcomers were answered while the memory was full, the slowest after %s", 6*each, 4*each, round(slowest))
}

// fillRedis takes all of the memory that a Redis may use, and a megabyte more, until "filler" is deleted.
func fillRedis(t testing.TB, node *redisNode) {
	t.Helper()
	var used int
	for line := range strings.Lines(node.client.Info(t.Context(), "memory").Val()) {
		_, _ = fmt.Sscanf(line, "used_memory:%d", &used)
	}
	if err := node.client.ConfigSet(t.Context(), "maxmemory", fmt.Sprint(used+16<<20)).Err(); used == 0 || err != nil {
		t.Fatalf("used_memory is %d, and CONFIG SET maxmemory says: %v", used, err)
	}
	if err := node.client.SetRange(t.Context(), "filler", 20<<20, "end").Err(); err != nil {
		t.Fatal(err)
	}
}

// exchange makes a request, and reads the answer.
func exchange(t testing.TB, method, url, body string) (status int, answer reply) {
	t.Helper()
	client := visitor()
	client.Timeout = time.Minute
	answer = request{method: method, path: url, body: body}.send(context.Background(), client, "")
	if answer.status == 0 {
		t.Error(answer.code)
	}
	return answer.status, answer
}

// metric reads a line of a server's metrics.
func metric(t testing.TB, server, name string) string {
	t.Helper()
	response, err := visitor().Get(server + "/metrics")
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
