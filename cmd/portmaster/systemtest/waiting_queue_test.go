//go:build !faults

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
)

// queue is callers in line for the ports of a service, all of which are taken at first.
type queue struct {
	*replicas
	opened  chan struct{} // closed when those who have the ports give them back
	served  sync.WaitGroup
	callers []*caller // in the order in which they joined the line
	dies    int       // the server that is to die; -1 is none

	mu       sync.Mutex
	holds    []hold
	turns    []turn
	repeated outcomes // calls that had no answer, and what their repeats came to
}

// caller waits for a port, keeps it for a moment, and gives it back.
type caller struct {
	name, secret string
	server       int
	stay         time.Duration // how long it keeps its port
	got          reply
	answered     time.Time
}

// turn is how a port went from one to the next: by the call that released it, and the answer that has it.
type turn struct {
	fence              int64
	answered, released time.Time
}

func newQueue(r *replicas) *queue {
	return &queue{replicas: r, opened: make(chan struct{}), dies: -1, repeated: outcomes{}}
}

// claim is the call of a caller, which waits in line for at most the given time, "" for none.
func (c *caller) claim(wait string) request {
	if wait != "" {
		wait = "?wait=" + wait
	}
	return request{method: "POST", path: "/ports" + wait, body: fmt.Sprintf(`{"name":%q,"secret":%q}`, c.name, c.secret)}
}

// takeAll lets somebody have each port until the queue is opened.
func (q *queue) takeAll() {
	q.t.Helper()
	for i := range q.ports {
		c := &caller{name: fmt.Sprintf("first-%d", i), secret: uuid.NewString(), server: i % len(q.servers)}
		c.got = q.must(201, c.server, c.claim(""))
		c.answered = time.Now()
		q.served.Go(func() {
			<-q.opened
			q.giveBack(c)
		})
	}
}

// open lets those who have the ports give them back.
func (q *queue) open() { close(q.opened) }

// join puts a caller in line, and returns when it is there: so the callers are in line in the order in which they joined.
func (q *queue) join() {
	q.t.Helper()
	q.joinWith(len(q.callers)%len(q.servers), q.wait)
}

// joinWith puts a caller of a server in line by a call of its own.
func (q *queue) joinWith(server int, call func(*caller)) {
	q.t.Helper()
	c := &caller{
		name: fmt.Sprintf("caller-%d", len(q.callers)), secret: uuid.NewString(), server: server,
		stay: time.Duration(5+rand.IntN(40)) * time.Millisecond,
	}
	q.callers = append(q.callers, c)
	before := q.inLine()
	q.served.Go(func() { call(c) })
	for deadline := time.Now().Add(patience); q.inLine() == before; time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			q.t.Fatalf("%s does not get into the line", c.name)
		}
	}
}

// ask makes a call of a caller. Where its server has died, it is repeated on the next one.
func (q *queue) ask(c *caller, r request) reply {
	got := q.send(q.t.Context(), c.server, r)
	if got.status != 0 || c.server != q.dies {
		return got
	}
	c.server = (c.server + 1) % len(q.servers)
	got = q.send(q.t.Context(), c.server, r)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.repeated[r.method+" "+got.code]++
	return got
}

// wait waits for a port, keeps it for a moment, and gives it back.
func (q *queue) wait(c *caller) {
	c.got = q.ask(c, c.claim("60s"))
	if c.got.status == 201 || c.got.status == 200 && q.dies >= 0 {
		c.answered = time.Now()
		time.Sleep(c.stay)
		q.giveBack(c)
	}
}

// giveBack releases what a caller has.
func (q *queue) giveBack(c *caller) {
	released := time.Now()
	got := q.ask(c, request{method: "DELETE", path: fmt.Sprintf("/ports/%d", c.got.Port), secret: c.secret})
	if got.status != 204 {
		q.t.Errorf("%s gives port %d back: %s %s", c.name, c.got.Port, got.code, got.detail)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holds = append(q.holds, hold{port: c.got.Port, count: 1, fence: c.got.Fence, from: c.got.Created, until: released})
	q.turns = append(q.turns, turn{fence: c.got.Fence, answered: c.answered, released: released})
}

// newcomers asks for ports without waiting, while more calls are in line than there are ports: each is refused. It returns
// how many there were.
func (q *queue) newcomers() (refused int) {
	q.t.Helper()
	for i := 0; ; i++ {
		got := q.send(q.t.Context(), i%len(q.servers), request{method: "POST", path: "/offers", body: fmt.Sprintf(`{"name":"newcomer-%d"}`, i)})
		if q.inLine() < q.ports {
			return refused
		}
		if got.code != "EXHAUSTED" {
			q.t.Errorf("a newcomer passes the line: %s", got.code)
		}
		refused++
		time.Sleep(10 * time.Millisecond)
	}
}
