package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

// TestManyClients lets clients on three servers fight over few ports and few names. What each was told is one history:
// taken by port, and taken by name, there must be an order of the calls, each within the time that it took, in which
// every answer is right. In the end nothing may be left over.
func TestManyClients(t *testing.T) {
	const (
		clients, calls = 32, 50_000
		ports, names   = 50, 60
		first          = 20000
		seed           = 1
	)
	store := storetest.Redis(t)
	f := &fight{t: t, start: time.Now(), names: names, first: first, ports: ports}
	f.client.Transport = &http.Transport{MaxIdleConnsPerHost: clients}
	for range 3 {
		f.servers = append(f.servers, startProgram(t, store.Settings()...).addr)
	}
	f.mustDefine(first, first+ports-1)

	var all sync.WaitGroup
	for id := range clients {
		all.Go(func() {
			c := &fighter{fight: f, id: id, random: rand.New(rand.NewPCG(seed, uint64(id)))}
			for f.made.Load() < calls && !t.Failed() {
				c.act()
			}
			f.mu.Lock()
			f.history = append(f.history, c.history...)
			f.mu.Unlock()
		})
	}
	all.Wait()
	took := time.Since(f.start)
	seen := map[string]int{}
	for _, e := range f.history {
		seen[e.act+" "+e.code]++
	}
	t.Logf("seed %d: %d calls of %d clients in %s, %.0f a second", seed, len(f.history), clients, took, float64(len(f.history))/took.Seconds())
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d %s", seen[what], what)
	}
	for what := range strings.SplitSeq("offer 201,offer 200,offer NAME_TAKEN,offer EXHAUSTED,offer OFFER_REJECTED,"+
		"accept 201,accept 200,accept OFFER_REJECTED,accept OFFER_NOT_FOUND,reject 204,reject OFFER_ACCEPTED,"+
		"release 204,release PORT_NOT_FOUND,release PRECONDITION_FAILED", ",") {
		if seen[what] == 0 {
			t.Errorf("%q was never seen: the clients do not fight enough", what)
		}
	}

	f.checkLinearizable()
	f.checkNothingLeft(store)
}

// fight is what the clients share.
type fight struct {
	t            *testing.T
	start        time.Time
	servers      []string
	client       http.Client
	names        int
	first, ports int
	made         atomic.Int64

	mu      sync.Mutex
	history []event
	board   [64]*ticket // offers that were made, for others to meddle with
	posted  int
	tickets []*ticket
}

// ticket is an offer that a client got; the fence is 0 until it is accepted.
type ticket struct {
	secret, name string
	port         int
	fence        atomic.Int64
}

// event is one call and its answer.
type event struct {
	act          string // offer, accept, reject, release
	client       int
	name, secret string // as far as they are known
	port         int
	byPort       bool // release
	condition    int64
	code         string // the error's, or the status
	fence        int64  // of the allocation that was made
	call, ret    int64
}

// fighter is one client.
type fighter struct {
	*fight
	id      int
	random  *rand.Rand
	history []event
}

func (c *fighter) act() {
	switch n := c.random.IntN(100); {
	case n < 40:
		c.offer()
	case n < 68:
		if t := c.pick(); t != nil {
			c.accept(t)
		}
	case n < 78:
		if t := c.pick(); t != nil {
			c.reject(t)
		}
	default:
		c.release()
	}
}

func (c *fighter) offer() {
	e := event{act: "offer", name: fmt.Sprintf("name-%d", c.random.IntN(c.names)), secret: uuid.NewString()}
	made := c.do(e, "POST", "/offers", fmt.Sprintf(`{"name":%q,"secret":%q}`, e.name, e.secret), 0)
	if made.code != "201" {
		return
	}
	if c.random.IntN(5) == 0 { // the answer might have got lost
		e.port = made.port
		c.do(e, "POST", "/offers", fmt.Sprintf(`{"name":%q,"secret":%q}`, e.name, e.secret), 0)
	}
	t := &ticket{secret: e.secret, name: e.name, port: made.port}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.board[c.posted%len(c.board)] = t
	c.posted++
	c.tickets = append(c.tickets, t)
}

// pick takes a ticket that any client posted, most often one of the last.
func (c *fighter) pick() *ticket {
	back := min(c.random.IntN(64), c.random.IntN(64))
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board[(c.posted-1-back+2*len(c.board))%len(c.board)]
}

func (c *fighter) accept(t *ticket) {
	done := c.do(event{act: "accept", name: t.name, secret: t.secret, port: t.port}, "POST", "/offers/"+t.secret+"/accept", "", 0)
	if done.fence != 0 {
		t.fence.Store(done.fence)
	}
}

func (c *fighter) reject(t *ticket) {
	done := c.do(event{act: "reject", name: t.name, secret: t.secret, port: t.port}, "DELETE", "/offers/"+t.secret, "", 0)
	if done.code == "204" && c.random.IntN(4) == 0 {
		again := event{act: "offer", name: t.name, secret: t.secret, port: t.port}
		c.do(again, "POST", "/offers", fmt.Sprintf(`{"name":%q,"secret":%q}`, t.name, t.secret), 0)
	}
}

func (c *fighter) release() {
	t := c.pick()
	if t == nil {
		return
	}
	e := event{act: "release"}
	if c.random.IntN(2) == 0 {
		e.condition = t.fence.Load() // 0, where nobody accepted it yet: then without If-Match
	}
	holder := t.name
	if e.byPort = c.random.IntN(2) == 0; e.byPort {
		e.port, holder = t.port, strconv.Itoa(t.port)
	} else {
		e.name = t.name
	}
	c.do(e, "DELETE", "/ports/"+holder, "", e.condition)
}

// do makes a call to any of the servers and records it.
func (c *fighter) do(e event, method, path, body string, fence int64) event {
	e.client, e.call = c.id, time.Since(c.start).Nanoseconds()
	status, answer := c.send(c.servers[c.random.IntN(len(c.servers))], method, "/v1/services/web"+path, body, fence)
	e.ret = time.Since(c.start).Nanoseconds()
	e.code = strconv.Itoa(status)
	if answer.Code != "" {
		e.code = answer.Code
	}
	if status == 0 || status >= 500 {
		c.t.Errorf("%s %s: %s", method, path, e.code)
	}
	if answer.Port != 0 {
		e.port = answer.Port
	}
	e.fence = answer.Fence
	c.history = append(c.history, e)
	c.made.Add(1)
	return e
}

// reply is what the tests read of any answer.
type reply struct {
	Code  string
	Name  string
	Port  int
	Fence int64
}

func (f *fight) send(server, method, path, body string, fence int64) (status int, answer reply) {
	request, err := http.NewRequestWithContext(f.t.Context(), method, "http://"+server+path, strings.NewReader(body))
	if err != nil {
		return 0, reply{Code: err.Error()}
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if fence != 0 {
		request.Header.Set("If-Match", fmt.Sprintf(`"%d"`, fence))
	}
	response, err := f.client.Do(request)
	if err != nil {
		return 0, reply{Code: err.Error()}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if len(text) > 0 && err == nil {
		err = json.NewDecoder(bytes.NewReader(text)).Decode(&answer)
	}
	if err != nil {
		return 0, reply{Code: err.Error()}
	}
	return response.StatusCode, answer
}

// holding is the state of a port, or of a name: free where the secret is empty, on offer where the fence is 0.
type holding struct {
	secret string
	fence  int64
}

// after says what a holding may be after a call that was answered as it was: none, where the answer is wrong.
func after(h holding, e event) []holding {
	only := func(right bool, next holding) []holding {
		if right {
			return []holding{next}
		}
		return nil
	}
	free, offered, allocated := h.secret == "", h.secret != "" && h.fence == 0, h.fence != 0
	own := h.secret == e.secret
	switch e.act + " " + e.code {
	case "offer 201":
		return only(free, holding{secret: e.secret})
	case "offer 200":
		return only(offered && own, h)
	case "offer NAME_TAKEN":
		return only(!free, h)
	case "offer EXHAUSTED":
		return only(free, h)
	case "accept 201":
		return only(offered && own, holding{e.secret, e.fence})
	case "accept 200":
		return only(allocated && own && h.fence == e.fence, h)
	case "reject 204":
		if offered && own {
			return []holding{{}}
		}
		return only(!own, h) // rejected before
	case "reject OFFER_ACCEPTED":
		return only(allocated && own, h)
	case "offer OFFER_REJECTED", "accept OFFER_REJECTED", "accept OFFER_NOT_FOUND", "reject OFFER_NOT_FOUND":
		return only(!own, h)
	case "release 204":
		return only(allocated && (e.condition == 0 || h.fence == e.condition), holding{})
	case "release PORT_NOT_FOUND":
		return only(!allocated, h)
	case "release PRECONDITION_FAILED":
		return only(allocated && h.fence != e.condition, h)
	case "maybe released": // it was this allocation that was released, or another
		if h.fence == e.condition {
			return []holding{{}, h}
		}
		return []holding{h}
	}
	return nil
}

// checkLinearizable checks the history of each port and of each name.
func (f *fight) checkLinearizable() {
	f.t.Helper()
	histories := map[string][]porcupine.Operation{}
	add := func(of string, e event) {
		histories[of] = append(histories[of], porcupine.Operation{ClientId: e.client, Input: e, Call: e.call, Return: e.ret})
	}
	port := func(e event) string { return fmt.Sprintf("port %d", e.port) }
	made := map[int64]event{} // the allocations
	for _, e := range f.history {
		if e.act == "accept" && e.code == "201" {
			if made[e.fence].fence != 0 {
				f.t.Errorf("fence %d was given twice", e.fence)
			}
			made[e.fence] = e
		}
	}
	for _, e := range f.history {
		if e.act != "release" {
			add(e.name, e)
			if e.port != 0 && e.code != "NAME_TAKEN" && e.code != "EXHAUSTED" {
				add(port(e), e)
			}
			continue
		}
		// A release is told the port or the name. Which name, or port, came free with it follows from the fence; without
		// one, from the allocations that it can have been.
		if e.byPort {
			add(port(e), e)
		} else {
			add(e.name, e)
		}
		if e.code != "204" {
			continue
		}
		candidates := []event{made[e.condition]}
		if e.condition == 0 {
			candidates = released(e, made)
		}
		for _, a := range candidates {
			other := e
			other.condition = a.fence
			if len(candidates) > 1 {
				other.act, other.code = "maybe", "released"
			}
			if e.byPort {
				add(a.name, other)
			} else {
				add(port(a), other)
			}
		}
	}
	model := (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{holding{}} },
		Step: func(state, input, _ any) (next []any) {
			for _, h := range after(state.(holding), input.(event)) {
				next = append(next, h)
			}
			return next
		},
	}).ToModel()
	began := time.Now()
	for of, history := range histories {
		if result := porcupine.CheckOperationsTimeout(model, history, 20*time.Second); result != porcupine.Ok {
			f.t.Errorf("the %d calls about %s are not linearizable: %s", len(history), of, result)
		}
	}
	f.t.Logf("%d histories, of the ports and of the names, were checked in %s", len(histories), time.Since(began))
}

// released returns the allocations that an unconditional release can have ended: those of its name, or its port, that may
// have been there, and that no other had replaced by then.
func released(e event, made map[int64]event) (candidates []event) {
	var same []event
	for _, a := range made {
		if (e.byPort && a.port == e.port || !e.byPort && a.name == e.name) && a.call <= e.ret {
			same = append(same, a)
		}
	}
	for _, a := range same {
		if !slices.ContainsFunc(same, func(later event) bool { return later.call > a.ret && later.ret < e.call }) {
			candidates = append(candidates, a)
		}
	}
	return candidates
}

func (f *fight) mustDefine(start, end int) {
	f.t.Helper()
	body := fmt.Sprintf(`{"start":%d,"end":%d}`, start, end)
	if status, answer := f.send(f.servers[0], "PUT", "/v1/services/web", body, 0); status != 201 {
		f.t.Fatalf("status %d, code %s", status, answer.Code)
	}
}

// checkNothingLeft gives everything back, and takes every port once more.
func (f *fight) checkNothingLeft(store storetest.Store) {
	t := f.t
	t.Helper()
	counts := func() (ports struct{ Total, Free, Offered, Allocated int }) {
		var service struct {
			Ports struct{ Total, Free, Offered, Allocated int }
		}
		f.get("", &service)
		return service.Ports
	}
	var offers, allocations []reply
	f.get("/offers", &offers)
	f.get("/ports", &allocations)
	if p := counts(); p.Total != f.ports || p.Free+p.Offered+p.Allocated != f.ports || p.Offered != len(offers) || p.Allocated != len(allocations) {
		t.Errorf("%+v, and %d offers and %d allocations are listed", p, len(offers), len(allocations))
	}
	seen := map[int]bool{}
	for _, held := range slices.Concat(offers, allocations) {
		if seen[held.Port] {
			t.Errorf("port %d is held twice", held.Port)
		}
		seen[held.Port] = true
	}

	for _, ticket := range f.tickets {
		f.send(f.servers[1], "DELETE", "/v1/services/web/offers/"+ticket.secret, "", 0)
	}
	for _, a := range allocations {
		if status, answer := f.send(f.servers[2], "DELETE", fmt.Sprintf("/v1/services/web/ports/%d", a.Port), "", a.Fence); status != 204 {
			t.Errorf("releasing port %d: status %d %s", a.Port, status, answer.Code)
		}
	}
	if p := counts(); p.Free != f.ports {
		t.Errorf("after all was given back: %+v", p)
	}
	ctx := context.Background()
	for _, hash := range []string{"names", "offers", "ports"} {
		if left := store.Admin.HGetAll(ctx, store.Prefix+":{default}:"+hash+":web").Val(); len(left) > 0 {
			t.Errorf("%s are left: %v", hash, left)
		}
	}
	if n := store.Admin.ZCard(ctx, store.Prefix+":{default}:free:web").Val(); n != int64(f.ports) {
		t.Errorf("%d ports are free that were handed out, want %d", n, f.ports)
	}

	taken := map[int]bool{}
	for i := range f.ports {
		status, answer := f.send(f.servers[i%3], "POST", "/v1/services/web/offers", fmt.Sprintf(`{"name":"last-%d"}`, i), 0)
		if status != 201 || taken[answer.Port] || answer.Port < f.first || answer.Port >= f.first+f.ports {
			t.Errorf("offer %d: status %d, port %d, code %s", i, status, answer.Port, answer.Code)
		}
		taken[answer.Port] = true
	}
	if _, answer := f.send(f.servers[0], "POST", "/v1/services/web/offers", `{"name":"one-too-many"}`, 0); answer.Code != "EXHAUSTED" {
		t.Errorf("one port more than there are: %+v", answer)
	}
}

func (f *fight) get(path string, target any) {
	f.t.Helper()
	response, err := f.client.Get("http://" + f.servers[0] + "/v1/services/web" + path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(target); err != nil {
		f.t.Fatal(err)
	}
}
