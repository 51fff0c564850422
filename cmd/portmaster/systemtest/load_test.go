//go:build faults

package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// loadOptions says who calls whom.
type loadOptions struct {
	servers  []string // their URLs
	services []service
	clients  int           // each has one service
	sticky   bool          // a client stays with one server; else each of its calls goes to the next
	held     int           // how many allocations a client keeps at most, before it releases its oldest
	pause    time.Duration // between two holders, on average
}

// load is clients at work. Each lives the lives of holders, one after the other, and repeats a call whose outcome it does
// not know, with the same secret, until it gets a definite answer.
type load struct {
	ledger      *ledger
	connections atomic.Int64 // opened
	ended       chan struct{}
	end         sync.Once
	all         sync.WaitGroup
}

// startLoad lets clients call until the load is stopped, or the test ends.
func startLoad(t testing.TB, l *ledger, o loadOptions) *load {
	t.Helper()
	w := &load{ledger: l, ended: make(chan struct{})}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.connections.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	for id := range o.clients {
		web := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial, MaxConnsPerHost: 1}}
		t.Cleanup(web.CloseIdleConnections)
		c := &client{load: w, options: o, web: web, id: id, service: o.services[id%len(o.services)], calls: id}
		w.all.Go(c.run)
	}
	t.Cleanup(w.stop) // before the connections are closed
	return w
}

// stop lets every client finish the call that it is in. What was not answered by then is repeated no more.
func (w *load) stop() {
	w.end.Do(func() { close(w.ended) })
	w.all.Wait()
}

func (w *load) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// client is one caller, with a connection of its own to each server.
type client struct {
	*load
	options loadOptions
	web     *http.Client
	id      int
	service service
	calls   int    // so far
	holds   []call // the accepts of what it holds, oldest first
}

func (c *client) run() {
	for n := 0; !c.over(); n++ {
		c.live(fmt.Sprintf("c%d-%d", c.id, n))
		if len(c.holds) > c.options.held {
			c.releaseOldest()
		}
		time.Sleep(time.Duration(rand.Int64N(2*int64(c.options.pause) + 1)))
	}
}

// live leads one holder from its offer to its allocation, or to its rejection.
func (c *client) live(name string) {
	holder := call{service: c.service, name: name, secret: uuid.NewString()}
	offered := c.insist(offer, holder)
	if offered.code == "EXHAUSTED" && len(c.holds) > 0 {
		c.releaseOldest()
	}
	if !offered.acknowledged() {
		return
	}
	if rand.IntN(8) == 0 { // the answer might have got lost
		c.insist(offer, holder)
	}
	if rand.IntN(10) == 0 {
		c.insist(reject, holder)
		return
	}
	accepted := c.insist(accept, holder)
	if !accepted.acknowledged() {
		return
	}
	if rand.IntN(8) == 0 {
		c.insist(accept, holder)
	}
	c.holds = append(c.holds, accepted)
}

// releaseOldest releases what it has held longest. The fence makes it safe to repeat.
func (c *client) releaseOldest() {
	oldest := c.holds[0]
	c.holds = c.holds[1:]
	c.insist(release, call{service: oldest.service, name: oldest.name, secret: oldest.secret, port: oldest.port, fence: oldest.fence})
}

// insist makes a call, and makes it again until the answer is definite or the load is over. It returns the last answer.
func (c *client) insist(kind string, about call) call {
	about.kind = kind
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		answered := c.do(about)
		if answered.acknowledged() || answered.refused() || c.over() {
			return answered
		}
		time.Sleep(wait/2 + rand.N(wait/2))
	}
}

// do makes one call and records it.
func (c *client) do(made call) call {
	made.server = c.options.servers[c.id%len(c.options.servers)]
	if !c.options.sticky {
		made.server = c.options.servers[c.calls%len(c.options.servers)]
	}
	c.calls++
	made.start = time.Now()
	made = send(c.web, made)
	made.end = time.Now()
	c.ledger.add(made)
	return made
}

// send makes the request of a call, and reads the answer into it.
func send(web *http.Client, c call) call {
	request, err := newRequest(c)
	if err != nil {
		c.code = err.Error()
		return c
	}
	response, err := web.Do(request)
	if err != nil {
		c.code = err.Error()
		return c
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil { // of an answer without its end nothing is believed
		c.code = err.Error()
		return c
	}
	c.status = response.StatusCode
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	c.problem = kind == "application/problem+json"
	if !c.problem && !c.acknowledged() || c.status == http.StatusNoContent {
		return c
	}
	var answer struct {
		Code    string
		Name    string
		Port    int
		Fence   int64
		Expires time.Time
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&answer); err != nil {
		c.status, c.code = 0, err.Error()
		return c
	}
	c.code, c.answered, c.expiresAt = answer.Code, answer.Name, answer.Expires
	if c.acknowledged() {
		c.port, c.fence = answer.Port, answer.Fence
	}
	return c
}

func newRequest(c call) (*http.Request, error) {
	method, path, body := "POST", c.service.path(), ""
	switch c.kind {
	case offer:
		path += "/offers"
		body = fmt.Sprintf(`{"name":%q,"secret":%q}`, c.name, c.secret)
	case accept, reject:
		path += "/offers/" + c.secret + "/" + c.kind
	case release:
		method = "DELETE"
		path += "/ports/" + strconv.Itoa(c.port)
	default:
		return nil, errors.New("no such kind of call: " + c.kind)
	}
	request, err := http.NewRequest(method, c.server+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.kind == release {
		request.Header.Set("If-Match", fmt.Sprintf(`"%d"`, c.fence))
	}
	return request, nil
}
