//go:build !faults

package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

const (
	abuseRounds = 3
	roundTime   = 200 * time.Millisecond
	abusers     = 2 // each waits for an answer before it goes on; more would take the machine from the servers
)

// TestAbuse has clients do what is hard on the servers and on Redis, on three servers, and watches what a client feels of it who
// claims and releases a port of its own service, time and again. Rounds with and without abuse take turns, so that whatever else
// goes on in the machine is in both.
func TestAbuse(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := &abuse{replicas: startReplicasOn(t, store, 3, 20000, 100, "PORTMASTER_MAX_SERVICES=20000")}
	a.client.CloseIdleConnections()
	a.redis = processOf(t, store)
	a.defineMany()
	floor := muchLater
	lists, cuts, lines := a.lists(), a.cuts(), a.thousandLines()
	for _, c := range []struct {
		name  string
		begin func() (abuser func(id, n int) (calls int), end func())
	}{
		{"ordinary calls", a.ordinary}, // for comparison, the first: as many clients that do no harm
		{"lists of ports", lists},
		{"cuts of ranges", cuts},
		{"bodies that stall", a.stalledBodies},
		{"1,000 lines", lines},
		{"20,000 services listed", a.listed},
		{"20,000 services scraped", a.scraped},
	} {
		t.Run(c.name, func(t *testing.T) {
			var quiet, abused []time.Duration
			for range abuseRounds {
				p99, _ := a.victim(t)
				quiet = append(quiet, p99)
				p99, more := a.besides(t, c.begin)
				abused = append(abused, p99)
				t.Log(more)
			}
			was, is := percentile(quiet, 0.5), percentile(abused, 0.5)
			t.Logf("p99 of the victim: %s, and %s beside %s; of the rounds: %s, and %s", was, is, c.name, quiet, abused)
			if c.name == "ordinary calls" {
				floor = max(floor, 8*is)
			}
			if is > 5*was && is-was > floor {
				t.Errorf("beside %s p99 is %.1f times what it was", c.name, float64(is)/float64(was))
			}
		})
	}
}

// muchLater is what a machine with two cores may need to let a process have one of them, when others work at all they can. Where it
// is slow, or has the race detector, it may need more: eight times what there is beside clients that do no harm.
const muchLater = 30 * time.Millisecond

// abuse is the servers, and what abusers do.
type abuse struct {
	*replicas
	redis int
}

// victim claims and releases its port on one connection, for a round. It tells what 99 of 100 cycles do not exceed, and how many
// there were.
func (a *abuse) victim(t *testing.T) (p99 time.Duration, cycles int) {
	t.Helper()
	own := *a.replicas
	own.t, own.client = t, &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer own.client.CloseIdleConnections()
	own.release(0, own.must(201, 0, claimOf("victim", `"count":1`)).held) // connects
	var took []time.Duration
	for end := time.Now().Add(roundTime); time.Now().Before(end) || len(took) < 20; {
		began := time.Now()
		own.release(0, own.must(201, 0, claimOf("victim", `"count":1`)).held)
		took = append(took, time.Since(began))
	}
	return percentile(took, 0.99), len(took)
}

// besides is victim while others abuse the servers. It also tells what went on, and what that took.
func (a *abuse) besides(t *testing.T, begin func() (func(id, n int) int, func())) (p99 time.Duration, more string) {
	t.Helper()
	act, end := begin()
	var calls atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	for id := range abusers {
		all.Go(func() {
			for n := 0; !stop.Load() && act != nil && !t.Failed(); n++ {
				calls.Add(int64(act(id, n)))
			}
		})
	}
	began, test, servers, redis := time.Now(), ownCPU(), a.serversCPU(), cpuOf(a.redis)
	p99, cycles := a.victim(t)
	took := time.Since(began)
	share := func(now, before time.Duration) float64 { return 100 * (now - before).Seconds() / took.Seconds() }
	more = fmt.Sprintf("%4d cycles, p99 %8s, %5d calls of abusers; of a core: test %3.0f %%, servers %3.0f %%, Redis %3.0f %%",
		cycles, p99, calls.Load(), share(ownCPU(), test), share(a.serversCPU(), servers), share(cpuOf(a.redis), redis))
	stop.Store(true)
	all.Wait()
	end()
	return p99, more
}

// ownCPU is what this process has taken of the machine: the victim, and who abuses.
func ownCPU() time.Duration { return cpuOf(os.Getpid()) }

func (a *abuse) serversCPU() (all time.Duration) {
	for _, s := range a.servers {
		all += cpuOf(s.cmd.Process.Pid)
	}
	return all
}

// cpuOf is what a process has taken of the machine, where that can be told.
func cpuOf(process int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	_, text, _ = bytes.Cut(text, []byte(") ")) // behind the name
	fields := strings.Fields(string(text))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// in is the servers, asked about a service of a pool.
func (a *abuse) in(pool, service string) *replicas {
	of := *a.replicas
	of.pool, of.service = pool, service
	return &of
}

func (a *abuse) ordinary() (func(id, n int) int, func()) {
	return func(id, n int) int {
		got, ok := a.expect(201, n%3, claimOf(fmt.Sprintf("ordinary-%d", id), `"count":1`))
		if ok {
			a.expect(204, n%3, request{method: "DELETE", path: "/ports/" + got.Name, secret: got.Secret})
		}
		return 2
	}, func() {}
}

// list is the body of a call for many.
func list(name string, counts ...int) string {
	var wants []string
	for i, count := range counts {
		wants = append(wants, fmt.Sprintf(`{"name":"%s-%d","count":%d}`, name, i, count))
	}
	return "[" + strings.Join(wants, ",") + "]"
}

// lists are 100 blocks of 100 ports, which is refused, and the most that is allowed: of a range where each fourth port is taken, and
// of one where ports are given back in pieces. Also a block that the first range does not have.
func (a *abuse) lists() func() (func(id, n int) int, func()) {
	fragments := a.in("lists", "fragments").define("fragments", 20000, 4000)
	for first := fragments.first; first < fragments.first+fragments.ports; first += 400 {
		var wants []string
		for port := first; port < first+400; port += 4 {
			wants = append(wants, fmt.Sprintf(`{"name":"holds-%d","port":%d}`, port, port))
		}
		fragments.must(201, 0, request{method: "POST", path: "/ports", body: "[" + strings.Join(wants, ",") + "]"})
	}
	pieces := a.in("lists", "pieces").define("pieces", 30000, 1000)
	wide := a.in("lists", "wide").define("wide", 31000, 10_000)
	threes := append(slices.Repeat([]int{3}, 85), 1)
	return func() (func(id, n int) int, func()) {
		return func(id, n int) int {
			name := fmt.Sprintf("abuser-%d", id)
			wide.expect(400, n%3, request{method: "POST", path: "/offers", body: list(name, slices.Repeat([]int{100}, 100)...)})
			fragments.expect(409, n%3, request{method: "POST", path: "/ports", body: list(name, 100)})
			if n%3 > 0 {
				return 2 + pieces.claimAndRelease(n, list(name, 100, 100, 56))
			}
			return 2 + fragments.claimAndRelease(n, list(name, threes...))
		}, func() {}
	}
}

// claimAndRelease claims a list, and releases each of it: so many calls.
func (r *replicas) claimAndRelease(n int, body string) (calls int) {
	got, _ := r.expect(201, n%3, request{method: "POST", path: "/ports", body: body})
	for _, h := range got.list {
		r.expect(204, n%3, request{method: "DELETE", path: "/ports/" + h.Name, secret: h.Secret})
	}
	return 1 + len(got.list)
}

// cuts are of services of 48,128 ports, each of which was handed out: refused, since one is held, and done, with the ports that
// cool down, and undone.
func (a *abuse) cuts() func() (func(id, n int) int, func()) {
	const first, last = 1024, 49151
	refused, cut := a.in("refused", "wide"), a.in("cut", "wide")
	all, one := request{method: "PUT", body: fmt.Sprintf(`{"start":%d,"end":%d,"cooldown":"1h"}`, first, last)}, request{method: "PUT", body: fmt.Sprintf(`{"start":%d,"end":%d,"cooldown":"1h"}`, first, first)}
	for _, of := range []*replicas{refused, cut} {
		of.must(201, 0, all)
		inParallel(0, (last-first+1)/256, func(i int) {
			got, ok := of.expect(201, i%3, request{method: "POST", path: "/ports", body: list(fmt.Sprintf("once-%d", i), 100, 100, 56)})
			for j, h := range got.list {
				if ok && (i > 0 || j > 0 || of == cut) {
					of.expect(204, i%3, request{method: "DELETE", path: "/ports/" + h.Name, secret: h.Secret})
				}
			}
		})
	}
	return func() (func(id, n int) int, func()) {
		return func(id, n int) int {
			if id > 0 {
				refused.expect(409, n%3, one)
				return 1
			}
			cut.expect(200, n%3, one)
			cut.expect(200, n%3, all)
			return 2
		}, func() {}
	}
}

// stalledBodies are of 200 connections, half of each body.
func (a *abuse) stalledBodies() (func(id, n int) int, func()) {
	var conns []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", a.servers[0].addr())
		if err != nil {
			a.t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /v1/services/web/ports HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 40000\r\n\r\n%s", strings.Repeat(" ", 20000))
		conns = append(conns, conn)
	}
	return nil, func() {
		for _, conn := range conns {
			conn.Close()
		}
	}
}

// thousandLines are 1,000 services whose port is taken, and a call that waits in line for each.
func (a *abuse) thousandLines() func() (func(id, n int) int, func()) {
	l := &lines{replicas: a.in("lines", ""), first: 20000}
	l.fill(1000)
	return func() (func(id, n int) int, func()) {
		ctx, hangUp := context.WithCancel(a.t.Context())
		for i := range l.holders {
			go l.of(i).send(ctx, i%3, request{method: "POST", path: "/ports?wait=300s", body: `{"name":"waiter"}`})
		}
		eventually(a.t, "all are in line", func() bool { return l.standing() == len(l.holders) })
		return nil, func() {
			hangUp()
			eventually(a.t, "nobody is in line", func() bool { return l.standing() == 0 })
		}
	}
}

const manyServices = 20_000

// defineMany defines many services.
func (a *abuse) defineMany() {
	a.t.Helper()
	direct := allocator.New(a.store.Client, allocator.Options{KeyPrefix: a.store.Prefix, OfferTTL: time.Minute, PortMin: 1, PortMax: 65535, Timeout: patience, MaxServices: manyServices})
	var made sync.WaitGroup
	for worker := range 64 {
		made.Go(func() {
			for i := worker; i < manyServices; i += 64 {
				if _, err := direct.Create(a.t.Context(), allocator.Caller{}, "many", allocator.Definition{Name: fmt.Sprintf("service-%05d", i), Start: 20000 + i, End: 20000 + i}); err != nil {
					a.t.Errorf("service %d: %v", i, err)
					return
				}
			}
		})
	}
	made.Wait()
}

var nextPage = regexp.MustCompile(`<([^>]+)>; rel="next"`)

// listed lists all services, on the server of the victim.
func (a *abuse) listed() (func(id, n int) int, func()) {
	return func(_, _ int) (calls int) {
		for path := "/v1/pools/many/services"; path != ""; calls++ {
			size, link := a.read(path)
			path = ""
			if found := nextPage.FindStringSubmatch(link); found != nil {
				path = found[1]
			} else if calls < manyServices/1000-1 || size == 0 {
				a.t.Errorf("the list ends after %d pages", calls+1)
			}
		}
		return calls
	}, func() {}
}

// scraped scrapes all services, from the server of the victim.
func (a *abuse) scraped() (func(id, n int) int, func()) {
	return func(_, _ int) int {
		if size, _ := a.read("/metrics"); size < 100*manyServices {
			a.t.Errorf("a scrape has %d bytes", size)
		}
		return 1
	}, func() {}
}

// read reads what a server has at a path: how much that is, and what its header Link says.
func (a *abuse) read(path string) (size int64, link string) {
	response, err := a.client.Get(a.servers[0].url + path)
	if err != nil {
		a.t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	if size, _ = io.Copy(io.Discard, response.Body); response.StatusCode != 200 {
		a.t.Errorf("%s: status %d", path, response.StatusCode)
	}
	return size, response.Header.Get("Link")
}
