//go:build faults

package systemtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// buildSkewed builds the program with a clock that is an hour ahead. No preloaded library would do, since Go asks the kernel.
func buildSkewed(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), now) != 1 {
		t.Fatalf("%s reads its clock in another way: adapt this test", original)
	}
	skewed, program := filepath.Join(dir, "time.go"), filepath.Join(dir, "portmaster")
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{original: skewed}})
	for path, text := range map[string][]byte{skewed: []byte(strings.Replace(string(source), now, now+"\tsec += 3600\n", 1)), skewed + ".json": overlay} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", skewed+".json", "-o", program, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestClocks lets the clock of a Redis step under load, back and ahead, while it runs, between two runs, and when a replica with
// another clock takes its place. One of the servers has a clock that is an hour ahead all the time. No port is held twice, no
// holder's time ends early by more than the step, no line stands, and no count is negative.
func TestClocks(t *testing.T) {
	skewed := buildSkewed(t)
	for _, step := range []time.Duration{5 * time.Second, -5 * time.Second, time.Minute, -time.Minute, time.Hour, -time.Hour} {
		for _, when := range []string{"at run time", "across a restart", "across a failover"} {
			t.Run(fmt.Sprintf("%s %s", step, when), func(t *testing.T) {
				t.Parallel()
				stepClock(t, skewed, step, when)
			})
		}
	}
}

// clockTest is what a test of a clock has set up.
type clockTest struct {
	*scenario
	clock   *storetest.Clock
	held    service          // has all kinds of holders, and what they left
	full    service          // has one port, and callers in line
	holders map[string]reply // of held, by name
}

func stepClock(t *testing.T, skewed string, step time.Duration, when string) {
	c := &clockTest{clock: storetest.NewClock(t), held: service{"default", "held"}, full: service{"clocks", "full"}, holders: map[string]reply{}}
	c.scenario = &scenario{t: t, service: service{"default", "django"}, node: startRedis(t, redisOptions{
		fsync: "no", env: c.clock.Env, args: []string{"--repl-diskless-sync-delay", "0"},
	})}
	way := startRelay(t, c.node.addr)
	for i := range 4 {
		c.replicas = append(c.replicas, startPortmaster(t, fmt.Sprintf("portmaster-%d", i+1),
			"PORTMASTER_REDIS_URL=redis://"+way.addr, "PORTMASTER_OFFER_TTL=2h"))
	}
	for _, r := range c.replicas {
		r.awaitReady()
	}
	c.replicas[1].terminate()
	c.replicas[1].runInstead(skewed)
	define(t, c.replicas[0].url, c.service, firstPort, lastPort)
	define(t, c.replicas[0].url, c.held, 9000, 9099)
	define(t, c.replicas[0].url, c.full, 9900, 9900)
	c.startLoad(urls(c.replicas[:3]), 12, 5*time.Millisecond)
	c.fillHeld()
	waits := c.fillLine()

	negative := c.watchCounts()
	c.replicas[3].kill() // its caller is the first in line
	switch when {
	case "at run time":
		c.clock.Shift(step)
	case "across a restart":
		c.node.terminate()
		c.clock.Shift(step)
		c.node.restart()
	case "across a failover":
		c.failOver(way, step)
	}
	for _, r := range c.replicas[:3] {
		r.awaitReady()
	}
	now := c.node.client.Time(t.Context()).Val()
	if off := time.Until(now) - step; off.Abs() > time.Second {
		t.Fatalf("the clock of Redis is off by %s", off+step)
	}
	released := time.Now()
	c.expect("the release of the full service's port", 204, "DELETE", c.full.path()+"/ports/first", "")
	select {
	case status := <-waits:
		t.Logf("who waited was told after %s: %d", round(time.Since(released)), status)
		if took := time.Since(released); status != http.StatusCreated || took > 3*time.Second {
			t.Errorf("who waited was told after %s: %d", took, status)
		}
	case <-time.After(15 * time.Second):
		t.Error("the line stands")
	}
	c.checkHeld(step, released)
	if n := negative(); n != "" {
		t.Errorf("counts: %s", n)
	}
	c.ledger.awaitWrites(t, 300)
	c.end(rules{clockStep: step})
}

// failOver lets a replica whose clock differs take the place of the master, when it has all of its state.
func (c *clockTest) failOver(way *relay, step time.Duration) {
	c.t.Helper()
	clock := storetest.NewClock(c.t)
	clock.Shift(step)
	host, port, _ := net.SplitHostPort(c.node.addr)
	next := startRedis(c.t, redisOptions{name: "replica", fsync: "no", env: clock.Env, args: []string{"--replicaof", host, port}})
	eventually(c.t, "the replica follows", func() bool {
		return strings.Contains(next.client.Info(c.t.Context(), "replication").Val(), "master_link_status:up")
	})
	way.lead("")                       // nobody changes anything any more
	time.Sleep(100 * time.Millisecond) // what was on its way is done
	eventually(c.t, "the replica has the whole state", func() bool {
		return replicationOffset(c.t, c.node, "master_repl_offset:") == replicationOffset(c.t, next, "slave_repl_offset:")
	})
	c.node.kill()
	if err := next.client.ReplicaOf(c.t.Context(), "no", "one").Err(); err != nil {
		c.t.Fatal(err)
	}
	c.node = next
	way.lead(next.addr)
}

// replicationOffset reads up to where a node has, or is to have, what the master wrote.
func replicationOffset(t testing.TB, node *redisNode, field string) string {
	t.Helper()
	for line := range strings.Lines(node.client.Info(t.Context(), "replication").Val()) {
		if offset, ok := strings.CutPrefix(line, field); ok {
			return strings.TrimSpace(offset)
		}
	}
	return "no " + field
}

// relay leads connections to an address that can change.
type relay struct {
	addr string

	mu    sync.Mutex
	to    string // empty: to nowhere
	conns map[net.Conn]bool
}

func startRelay(t testing.TB, to string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: listener.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		listener.Close()
		r.lead("")
	})
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(from)
		}
	}()
	return r
}

// lead closes all connections, and leads the next ones elsewhere.
func (r *relay) lead(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	for conn := range r.conns {
		conn.Close()
	}
	clear(r.conns)
}

func (r *relay) serve(from net.Conn) {
	defer from.Close()
	r.mu.Lock()
	to, err := net.Dial("tcp", r.to)
	if r.to == "" || err != nil {
		r.mu.Unlock()
		return
	}
	r.conns[from], r.conns[to] = true, true
	r.mu.Unlock()
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, from)
		to.Close()
	}()
	_, _ = io.Copy(from, to)
}

// expect makes a call of the first server that must have an answer.
func (c *clockTest) expect(what string, want int, method, path, body string) reply {
	c.t.Helper()
	status, answer := exchange(c.t, method, c.replicas[0].url+path, body)
	if status != want {
		c.t.Errorf("%s: %d %+v", what, status, answer)
	}
	return answer
}

// fillHeld lets the service have holders of each kind, some through the server whose clock is ahead, and ports that were given back.
func (c *clockTest) fillHeld() {
	c.t.Helper()
	post := func(kind, body string) {
		c.t.Helper()
		var name struct{ Name string }
		_ = json.Unmarshal([]byte(body), &name)
		status, answer := exchange(c.t, "POST", c.replicas[len(c.holders)%2].url+c.held.path()+"/"+kind, body)
		if status != http.StatusCreated {
			c.t.Fatalf("%s: %d %+v", body, status, answer)
		}
		c.holders[name.Name] = answer
	}
	post("ports", `{"name":"forever"}`)
	post("ports", `{"name":"leased","lease":"3h"}`)
	post("ports", `{"name":"leased-block","count":5,"lease":"3h"}`)
	post("offers", `{"name":"offered"}`)
	post("offers", `{"name":"offered-block","count":5}`)
	for i := range 5 {
		post("ports", fmt.Sprintf(`{"name":"gone-%d"}`, i))
		c.expect("a release", 204, "DELETE", fmt.Sprintf("%s/ports/gone-%d", c.held.path(), i), "")
	}
	post("ports", `{"name":"gone-block","count":20,"lease":"1h"}`)
	c.expect("a release", 204, "DELETE", c.held.path()+"/ports/gone-block", "")
}

// fillLine lets two callers wait for the one port of the full service: the first with a server that is to end.
func (c *clockTest) fillLine() <-chan int {
	c.t.Helper()
	c.expect("the first", 201, "POST", c.full.path()+"/ports", `{"name":"first"}`)
	told := make(chan int, 1)
	waiting := func(n int) {
		eventually(c.t, "callers wait", func() bool {
			var s struct{ Waiting int }
			_, ok := get(c.replicas[0].url+c.full.path(), &s)
			return ok && s.Waiting == n
		})
	}
	go func() {
		response, err := http.Post(c.replicas[3].url+c.full.path()+"/ports?wait=60s", "application/json", strings.NewReader(`{"name":"lost"}`))
		if err == nil { // its server is killed
			response.Body.Close()
		}
	}()
	waiting(1)
	go func() {
		// It asks the server whose clock is ahead.
		status, _ := exchange(c.t, "POST", c.replicas[1].url+c.full.path()+"/ports?wait=60s", `{"name":"second","secret":"6ff9aa52-7d5a-4a39-9b3e-0a2f9f0e9a01"}`)
		told <- status
	}()
	waiting(2)
	return told
}

// watchCounts looks at the counts of services all the while. What it returns ends that, and says which was negative.
func (c *clockTest) watchCounts() (end func() string) {
	var found atomic.Value
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			for _, of := range []service{c.service, c.held, c.full} {
				var s struct {
					Ports   struct{ Total, Free, Offered, Allocated, Cooling int }
					Waiting int
				}
				if _, ok := get(c.replicas[n%3].url+of.path(), &s); ok {
					p := s.Ports
					if min(p.Free, p.Offered, p.Allocated, p.Cooling, s.Waiting) < 0 || p.Free+p.Offered+p.Allocated+p.Cooling != p.Total {
						found.Store(fmt.Sprintf("%s: %+v", of.path(), s))
					}
				}
			}
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() string {
		close(done)
		<-ended
		text, _ := found.Load().(string)
		return text
	}
}

// checkHeld looks whether holders have what they had, and everybody else the rest.
func (c *clockTest) checkHeld(step time.Duration, since time.Time) {
	c.t.Helper()
	const offered, allocated = 6, 7
	eventually(c.t, "ports that were released are free", func() bool {
		p, ok := readCounts(c.replicas[0].url, c.held)
		return ok && p.Offered == offered && p.Allocated == allocated && p.Free == p.Total-offered-allocated
	})
	c.t.Logf("after %s they were free", round(time.Since(since)))
	if took := time.Since(since); took > 5*time.Second {
		c.t.Errorf("ports that were released before a step of %s were free %s after it", step, took)
	}
	for _, name := range []string{"forever", "leased", "leased-block"} {
		now := c.expect(name, 200, "GET", c.held.path()+"/ports/"+name, "")
		if had := c.holders[name]; now.Port != had.Port || now.Fence != had.Fence || !now.Expires.Equal(had.Expires) {
			c.t.Errorf("%s has %+v, and was told %+v", name, now, had)
		}
	}
	taken := map[int]bool{}
	for i := range 100 - offered - allocated {
		name := fmt.Sprintf("new-%d", i)
		got := c.expect(name, 201, "POST", c.held.path()+"/ports", `{"name":"`+name+`"}`)
		for _, of := range []string{"forever", "leased", "offered"} {
			if got.Port == c.holders[of].Port {
				c.t.Errorf("%s has port %d of %s", name, got.Port, of)
			}
		}
		if taken[got.Port] {
			c.t.Errorf("port %d is given out twice", got.Port)
		}
		taken[got.Port] = true
	}
	c.expect("one more", 409, "POST", c.held.path()+"/ports", `{"name":"more"}`)
	for _, name := range []string{"offered", "offered-block"} {
		c.expect("to accept "+name, 201, "POST", c.held.path()+"/offers/"+c.holders[name].Secret+"/accept", "")
	}
	for _, name := range []string{"forever", "leased", "leased-block", "offered", "offered-block"} {
		c.expect("to release "+name, 204, "DELETE", c.held.path()+"/ports/"+name, "")
	}
	for i := range 100 - offered - allocated {
		c.expect("to release a new one", 204, "DELETE", fmt.Sprintf("%s/ports/new-%d", c.held.path(), i), "")
	}
	c.expect("to remove the service", 204, "DELETE", c.held.path(), "")
	for _, kind := range []string{"service", "free", "fresh", "room", "names", "offers", "ports", "leases", "resting", "line"} {
		if key := "portmaster:{default}:" + kind + ":held"; c.node.client.Exists(c.t.Context(), key).Val() != 0 {
			c.t.Errorf("%s is left", key)
		}
	}
}
