//go:build !faults

package systemtest

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestServerDiesWhileCallsWait kills one of three servers while calls wait in line, its own among them. Who waited there
// asks another server, with the same secret, and is served; no port is lost with the server, or given to anybody twice.
func TestServerDiesWhileCallsWait(t *testing.T) {
	const callers, ports = 150, 10
	q := newQueue(startReplicas(t, 3, 23000, ports))
	q.takeAll()
	for range callers {
		q.join()
	}
	q.dies = 2
	q.open()
	eventually(t, "some are served", func() bool { return q.inLine() < callers*2/3 })
	q.servers[q.dies].signal(syscall.SIGKILL)
	began := time.Now()
	q.served.Wait()
	t.Logf("all were served %s later", time.Since(began).Round(time.Millisecond))
	q.repeated.log(t)
	if q.repeated["POST 201"] == 0 {
		t.Error("nobody waited on the server that died")
	}
	q.checkServed()
	q.awaitNobodyInLine()
	q.checkNothingHeld()
}

// TestCallerHangsUp has the first in line hang up: it loses its place long before the time is over that it would have
// waited, and the port goes to the next.
func TestCallerHangsUp(t *testing.T) {
	q := newQueue(startReplicas(t, 2, 24000, 1))
	q.takeAll()
	first := q.joinAndHold("ports")
	q.join()
	began := time.Now()
	first.conn.Close()
	eventually(t, "the first has lost its place", func() bool { return q.inLine() == 1 })
	t.Logf("it lost its place %s after it hung up", time.Since(began).Round(time.Millisecond))
	q.open()
	q.served.Wait()
	q.must(404, 0, request{method: "GET", path: "/ports/" + first.name})
	q.awaitNobodyInLine()
	q.checkNothingHeld()
}

// TestNobodyWhoHungUpGetsAPort has callers hang up just before a port comes free.
func TestNobodyWhoHungUpGetsAPort(t *testing.T) {
	const rounds = 20
	r := startReplicas(t, 2, 25000, 1)
	for i := range rounds {
		q := newQueue(r)
		q.takeAll()
		first := q.joinAndHold([]string{"ports", "offers"}[i%2])
		first.conn.Close()
		q.open()
		q.served.Wait()
		q.awaitNobodyInLine()
		q.checkNothingHeld()
	}
}

// TestShutdownSendsWaitersElsewhere stops one of two servers: who waits there is told at once to ask another, and does so, while
// the others go on waiting.
func TestShutdownSendsWaitersElsewhere(t *testing.T) {
	const callers = 20
	q := newQueue(startReplicas(t, 2, 26000, 2, "PORTMASTER_SHUTDOWN_DELAY=100ms", "PORTMASTER_SHUTDOWN_TIMEOUT=1m"))
	q.takeAll()
	for range callers {
		q.joinWith(0, q.wait)
	}
	stops := 1
	told := make(chan reply)
	for range callers {
		q.joinWith(stops, func(c *caller) {
			got := q.ask(c, c.claim("60s"))
			told <- got
			c.server = 0
			q.wait(c)
		})
	}
	q.servers[stops].signal(syscall.SIGTERM)
	for range callers {
		got := <-told
		if got.code != "UNAVAILABLE" || got.status != 503 || got.retryAfter == "" {
			t.Errorf("%d %s, Retry-After %q: %s", got.status, got.code, got.retryAfter, got.detail)
		}
	}
	q.dies = stops
	if code := q.servers[stops].wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	q.open()
	q.served.Wait()
	q.checkServed()
	q.awaitNobodyInLine()
	q.checkNothingHeld()
}

// connected is a caller in line, by the connection on which it waits.
type connected struct {
	name string
	conn net.Conn
}

// joinAndHold puts a caller in line, on the first server, who may hang up: a claim, or an offer.
func (q *queue) joinAndHold(route string) connected {
	q.t.Helper()
	c := connected{name: "hangs-up-" + uuid.NewString()[:8]}
	var err error
	if c.conn, err = net.Dial("tcp", q.servers[0].addr()); err != nil {
		q.t.Fatal(err)
	}
	before := q.inLine()
	body := fmt.Sprintf(`{"name":%q}`, c.name)
	fmt.Fprintf(c.conn, "POST /v1/services/web/%s?wait=60s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		route, len(body), body)
	eventually(q.t, c.name+" is in line", func() bool { return q.inLine() > before })
	return c
}
