package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
	"portmaster/handlers/connection"
)

// queue starts a call that has to wait in line for a port of django, and returns when it does.
func (a *api) queue(route, body string) *call {
	a.t.Helper()
	before := a.service("django").Waiting
	c := a.start("POST", route+"?wait=10", body)
	soon(a.t, "it waits in line", func() bool { return a.service("django").Waiting == before+1 })
	return c
}

// A port that comes free goes to who waits for it.
func TestWait(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		held := a.claim("django", `{"name":"web-00"}`)

		waiting := a.queue("/v1/services/django/offers", `{"name":"web-01","lease":60}`)
		a.delete(held.path()).want(204)
		r := waiting.answer().want(201)
		o := read[offer](r)
		equal(t, "port", o.Port, 5000)
		equal(t, "lease", o.Lease, 60)
		equal(t, "Location", r.header.Get("Location"), o.path())
		equal(t, "waiting", a.service("django").Waiting, 0)

		waiting = a.queue("/v1/services/django/ports", `{"name":"web-02"}`)
		a.delete(o.path()).want(204)
		r = waiting.answer().want(201)
		equal(t, "Location", r.header.Get("Location"), "/v1/services/django/ports/5000")
		equal(t, "ports", a.service("django").Ports, ports{Total: 1, Allocated: 1})
	})
}

// Who came first is served first, and nobody passes, waiting or not.
func TestLine(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5002")
		held := read[[]allocation](a.post("/v1/services/django/ports", `[{"name":"a"},{"name":"b"},{"name":"c"}]`).want(201))
		first := a.queue("/v1/services/django/ports", `{"name":"web-01"}`)
		second := a.queue("/v1/services/django/offers", `[{"name":"web-02"},{"name":"web-03"}]`)
		third := a.queue("/v1/services/django/ports", `{"name":"web-04"}`)
		a.post("/v1/services/django/ports", `{"name":"web-05"}`).problem(409, "EXHAUSTED")
		a.post("/v1/services/django/ports", `{"name":"a"}`).problem(409, "NAME_TAKEN")

		a.delete(held[0].path()).want(204)
		one := read[allocation](first.answer().want(201))
		equal(t, "the first", one.Name, "web-01")
		equal(t, "waiting", a.service("django").Waiting, 2)
		// One port is not enough for the second, and nobody else gets it.
		a.delete(held[1].path()).want(204)
		a.post("/v1/services/django/ports", `{"name":"web-05"}`).problem(409, "EXHAUSTED")
		a.post("/v1/services/django/ports", fmt.Sprintf(`{"name":"web-05","port":%d}`, held[1].Port)).problem(409, "PORT_TAKEN")
		a.delete(held[2].path()).want(204)
		equal(t, "the second", names(read[[]offer](second.answer().want(201))), "web-02 web-03")
		a.delete(one.path()).want(204)
		equal(t, "the third", read[allocation](third.answer().want(201)).Port, one.Port)
		equal(t, "waiting", a.service("django").Waiting, 0)
	})
}

// Where there is a port nobody waits, and where the name has one there is nothing to wait for.
func TestNoNeedToWait(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5001")
		for i, wait := range []string{"30", "1.5", "0.001", "60", "60.000", "30s", "1m", "1.s", ".0", "0.", ".5s", "0", "0s", "1us", "0.0006d"} {
			name := fmt.Sprint("web-", i)
			held := read[allocation](a.post("/v1/services/django/ports?wait="+wait, `{"name":"`+name+`"}`).want(201))
			a.post("/v1/services/django/offers?wait="+wait, `{"name":"`+name+`"}`).problem(409, "NAME_TAKEN")
			a.delete(held.path()).want(204)
		}
		a.claim("django", `{"name":"a"}`)
		a.claim("django", `{"name":"b"}`)
		a.post("/v1/services/django/ports?wait=0", `{"name":"c"}`).problem(409, "EXHAUSTED")
		a.post("/v1/services/flask/ports?wait=30", `{"name":"c"}`).problem(404, "SERVICE_NOT_FOUND")
	})
}

// When the time is over the answer is what it would have been at once.
func TestWaitIsOver(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		a.offer("django", "web-01")
		for _, route := range routesOfRequests {
			began := time.Now()
			r := a.post(route+"?wait=0.3", `{"name":"web-02"}`)
			r.problem(409, "EXHAUSTED")
			if took := time.Since(began); took < 300*time.Millisecond {
				t.Errorf("it waited %s", took)
			}
			if after, _ := strconv.Atoi(r.header.Get("Retry-After")); after > 1800 || after < 1700 { // less where the machine stalls
				t.Errorf("Retry-After: %d", after)
			}
		}
		equal(t, "waiting", a.service("django").Waiting, 0)
	})
}

func TestWaitInvalid(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.allocator.MaxWait = 5 * time.Second })
	a.define("django", "5000-5009")
	for _, route := range routesOfRequests {
		for _, bad := range []string{
			"", "soon", "-1", "-1s", "5.001", "6", "6s", "5001ms", "1e1", "NaN", "Inf", "1.5.5", ".", "1s5", "1 s", "1,5", "0x5", "1d", "-0", "-0s", "%2B0", "%2B1s", "0d0", "1s.", "0.5ns",
			"99999999999999999999", "9999999999h", "0.0000000001",
		} {
			a.post(route+"?wait="+strings.ReplaceAll(bad, " ", "%20"), `{"name":"web-01"}`).invalid("wait")
		}
		a.post(route+"?wait=5", `{"name":"web-01","port":5000}`).invalid("wait")
		a.post(route+"?wait=5", `[{"name":"web-01"},{"name":"web-02","port":5000}]`).invalid("wait")
		a.post(route+"?wait=6", `{"name":"-","lease":0}`).invalid("name", "lease", "wait")
		r := a.post(route+"?wait=0", `{"name":"web-01","port":5000}`).want(201)
		if strings.HasSuffix(route, "/ports") {
			a.delete("/v1/services/django/ports/5000").want(204)
		} else {
			a.delete(read[offer](r).path()).want(204)
		}
	}
	// Where nothing may wait.
	b := newAPI(t, storetest.Mini(t), func(s *settings) { s.allocator.MaxWait = 0 })
	b.define("django", "5000-5009")
	b.post("/v1/services/django/offers?wait=1ms", `{"name":"web-01"}`).invalid("wait")
	b.post("/v1/services/django/offers?wait=0", `{"name":"web-01"}`).want(201)
}

// A call that could wait counts with what it waited: not at all if a port was free. What was refused for another reason does not.
func TestWaitSeconds(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5001")
	a.claim("django", `{"name":"web-00"}`)
	a.post("/v1/services/django/ports?wait=10", `{"name":"web-01"}`).want(201)
	a.post("/v1/services/django/ports?wait=10", `{"name":"web-01"}`).want(409) // NAME_TAKEN
	a.post("/v1/services/flask/ports?wait=10", `{"name":"web-01"}`).want(404)
	a.post("/v1/services/django/ports?wait=0", `{"name":"web-02"}`).want(409)
	contains(t, a.get("/metrics").body, `portmaster_wait_seconds_bucket{outcome="granted",le="0.1"} 1`+"\n",
		`portmaster_wait_seconds_count{outcome="granted"} 1`+"\n", `portmaster_wait_seconds_count{outcome="exhausted"} 0`+"\n",
		`portmaster_wait_seconds_count{outcome="left"} 0`+"\n")
}

// The time for a request to arrive, and for an answer to be sent, is not that which a call waits in line.
func TestWaitOutlastsTheTimeouts(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t), func(s *settings) {
		s.server.ReadTimeout, s.server.WriteTimeout, s.server.IdleTimeout = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	})
	a.define("django", "5000-5000")
	held := a.claim("django", `{"name":"web-00"}`)
	waiting := a.queue("/v1/services/django/ports", `{"name":"web-01"}`)
	time.Sleep(time.Second)
	equal(t, "it still waits", a.service("django").Waiting, 1)
	a.delete(held.path()).want(204)
	waiting.answer().want(201)
}

// Who hangs up loses the place, and gets no port.
func TestHangUp(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		held := a.claim("django", `{"name":"web-00"}`)
		gone := a.queue("/v1/services/django/ports", `{"name":"web-01"}`)
		stays := a.queue("/v1/services/django/ports", `{"name":"web-02"}`)
		gone.hangUp()
		soon(t, "its place is given up", func() bool { return a.service("django").Waiting == 1 })
		a.delete(held.path()).want(204)
		equal(t, "who stayed", read[allocation](stays.answer().want(201)).Name, "web-02")
		equal(t, "ports", a.service("django").Ports, ports{Total: 1, Allocated: 1})
		if strings.Contains(a.log.String(), "call failed") {
			t.Error("the log takes it for an outage")
		}
		figures := a.get("/metrics").body
		contains(t, figures, `portmaster_operations_total{code="HUNG_UP",operation="claim"} 1`+"\n",
			`portmaster_waited_total{outcome="served",pool="default",service="django"} 1`+"\n",
			`portmaster_waited_total{outcome="unserved",pool="default",service="django"} 1`+"\n",
			"# TYPE portmaster_waited_total counter\n", "# TYPE portmaster_wait_seconds histogram\n",
			`portmaster_wait_seconds_count{outcome="granted"} 1`+"\n", `portmaster_wait_seconds_count{outcome="left"} 1`+"\n",
			`portmaster_wait_seconds_count{outcome="exhausted"} 0`+"\n")

		// A service without a line has no such figures, and one that is gone has none any more.
		a.define("flask", "5001-5001")
		a.delete("/v1/services/django/ports/web-02").want(204)
		a.delete("/v1/services/django").want(204)
		if figures := a.get("/metrics").body; strings.Contains(figures, "portmaster_waited_total{") {
			t.Error(figures)
		}
		waits := a.server.metrics.waits
		waits.mu.Lock()
		defer waits.mu.Unlock()
		equal(t, "lines that are remembered", len(waits.ended), 0)
	})
}

// Who hangs up is gone, though what was sent before has not been read yet.
func TestHangUpWithBytesPending(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5000")
	held := a.claim("django", `{"name":"web-00"}`)
	type waiter struct {
		what, pending string
		conn          *net.TCPConn
		hangUp        func(*net.TCPConn) error
	}
	var waiters []waiter
	for name, pending := range map[string]string{"nothing": "", "a byte": "x", "a request": "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"} {
		for how, hangUp := range map[string]func(*net.TCPConn) error{
			"closed":            (*net.TCPConn).Close,
			"closed for writes": (*net.TCPConn).CloseWrite,
			"reset":             func(c *net.TCPConn) error { c.SetLinger(0); return c.Close() },
		} {
			w := waiter{name + ", " + how, pending, a.dial(), hangUp}
			waiters = append(waiters, w)
			fmt.Fprintf(w.conn, "POST /v1/services/django/ports?wait=30 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"+
				`{"name":"web-%02d"}`, len(waiters))
		}
	}
	wait := func(n int) func() bool { return func() bool { return a.service("django").Waiting == n } }
	soon(t, "all wait in line", wait(len(waiters)))
	for _, w := range waiters {
		io.WriteString(w.conn, w.pending)
	}
	time.Sleep(2 * connection.Interval)
	equal(t, "calls that still wait", a.service("django").Waiting, len(waiters))
	for i, w := range waiters {
		w.hangUp(w.conn)
		soon(t, w.what+": its place is given up", wait(len(waiters)-i-1))
	}
	contains(t, a.get("/metrics").body, fmt.Sprintf(`portmaster_operations_total{code="HUNG_UP",operation="claim"} %d`+"\n", len(waiters)))
	a.delete(held.path()).want(204)
	equal(t, "ports", a.service("django").Ports, ports{Total: 1, Free: 1})
}

// A waiting call costs no goroutine beside that of its connection.
func TestOneWatcher(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5000")
	a.claim("django", `{"name":"web-00"}`)
	const calls = 50
	before := runtime.NumGoroutine()
	var waiting []*net.TCPConn
	for i := range calls {
		conn := a.dial()
		body := fmt.Sprintf(`{"name":"late-%d"}`, i)
		fmt.Fprintf(conn, "POST /v1/services/django/ports?wait=30 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		waiting = append(waiting, conn)
	}
	soon(t, "all wait", func() bool { return a.service("django").Waiting == calls })
	if more := runtime.NumGoroutine() - before; more >= 2*calls {
		t.Errorf("%d calls have %d goroutines", calls, more)
	}
	for _, conn := range waiting {
		conn.Close()
	}
	soon(t, "all are gone", func() bool { return a.service("django").Waiting == 0 })
}

// A client that sends its next request ahead has not hung up.
func TestWaitWithTheNextRequestBehind(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5000")
	held := a.claim("django", `{"name":"web-00"}`)
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	const body = `{"name":"web-01"}`
	fmt.Fprintf(conn, "POST /v1/services/django/ports?wait=10 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	soon(t, "it waits in line", func() bool { return a.service("django").Waiting == 1 })
	io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
	time.Sleep(3 * connection.Interval)
	equal(t, "it still waits", a.service("django").Waiting, 1)
	a.delete(held.path()).want(204)
	answers := bufio.NewReader(conn)
	for _, status := range []int{201, 200} {
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		equal(t, "status", r.StatusCode, status)
	}
}

// When the server drains nobody waits any more: another server may have the time.
func TestDrainEndsTheWaiting(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		other := newAPI(t, store)
		a.define("django", "5000-5000")
		held := a.claim("django", `{"name":"web-00"}`)
		one := a.queue("/v1/services/django/ports", `{"name":"web-01"}`)
		many := a.queue("/v1/services/django/offers", `[{"name":"web-02"}]`)
		elsewhere := other.queue("/v1/services/django/ports", `{"name":"web-03"}`)
		a.server.Drain()
		shut := func(r answer) {
			t.Helper()
			equal(t, "detail", r.problem(503, "UNAVAILABLE").Detail, "the server is shutting down")
			equal(t, "Retry-After", r.header.Get("Retry-After"), "1")
		}
		shut(one.answer())
		shut(many.answer())
		shut(a.post("/v1/services/django/ports?wait=10", `{"name":"web-01"}`))
		a.post("/v1/services/django/ports", `{"name":"web-01"}`).problem(409, "EXHAUSTED")
		equal(t, "waiting", other.service("django").Waiting, 1)
		a.delete(held.path()).want(204)
		elsewhere.answer().want(201)
	})
}

// A call that would wait, and need not, is served while the server drains.
func TestDrainServesWhoNeedNotWait(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	a.server.Drain()
	a.post("/v1/services/django/ports?wait=10", `{"name":"web-01"}`).want(201)
}

// To stand in line is not to be slow: neither the log nor the figures of the route take it for that.
func TestWaitingIsNotSlow(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5000")
	a.claim("django", `{"name":"web-00"}`)
	b := newAPI(t, a.store, func(s *settings) { s.server.SlowCall = 700 * time.Millisecond })
	waiting := b.start("POST", "/v1/services/django/ports?wait=1", `{"name":"web-01"}`)
	soon(t, "it waits in line", func() bool { return a.service("django").Waiting == 1 })
	contains(t, a.get("/metrics").body, `portmaster_waiting{pool="default",service="django"} 1`+"\n",
		`portmaster_waited_total{outcome="served",pool="default",service="django"} 0`+"\n") // to begin with
	waiting.answer().problem(409, "EXHAUSTED")
	if strings.Contains(b.log.String(), "slow call") {
		t.Error(b.log)
	}
	figures := b.get("/metrics").body
	contains(t, figures,
		`portmaster_waiting{pool="default",service="django"} 0`+"\n",
		`portmaster_operations_total{code="EXHAUSTED",operation="claim"} 1`+"\n",
		`portmaster_waited_total{outcome="served",pool="default",service="django"} 0`+"\n",
		`portmaster_waited_total{outcome="unserved",pool="default",service="django"} 1`+"\n",
		`portmaster_http_request_duration_seconds_count{method="POST",route="/v1/services/:service/ports?wait",status="409"} 1`+"\n",
		`portmaster_wait_seconds_bucket{outcome="exhausted",le="0.5"} 0`+"\n", `portmaster_wait_seconds_count{outcome="exhausted"} 1`+"\n")
	if strings.Contains(figures, `route="/v1/services/:service/ports"`) {
		t.Error("it is among the calls that do not wait")
	}
}

// What a call takes beyond its time in line is what the log goes by, whether it stood there or not.
func TestSlowCallsThatWait(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.SlowCall = 1 })
	b := newAPI(t, a.store, func(s *settings) { s.server.SlowCall = 1 })
	c := newAPI(t, a.store, func(s *settings) { s.server.SlowCall = 1 })
	a.define("django", "5000-5000")
	held := read[allocation](b.post("/v1/services/django/ports?wait=1", `{"name":"web-00"}`).want(201))
	contains(t, b.log.String(), "slow call", "waited=0s")

	began := time.Now()
	waiting := c.start("POST", "/v1/services/django/ports?wait=10", `{"name":"web-01"}`)
	soon(t, "it waits in line", func() bool { return a.service("django").Waiting == 1 })
	time.Sleep(500 * time.Millisecond)
	a.delete(held.path()).want(204)
	waiting.answer().want(201)
	contains(t, c.log.String(), "slow call", "status=201")
	_, text, _ := strings.Cut(c.log.String(), "waited=")
	waited, err := time.ParseDuration(strings.TrimSpace(text))
	if err != nil || waited < 500*time.Millisecond || waited > time.Since(began) {
		t.Errorf("it waited %s, %v", waited, err)
	}
}
