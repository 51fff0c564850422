//go:build !faults

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// fighter is one client.
type fighter struct {
	*fight
	id      int
	random  *rand.Rand
	history []event
	kept    *lease
}

func (c *fighter) act() {
	if c.tend() {
		return
	}
	switch n := c.random.IntN(100); {
	case n < 17:
		c.take("offer")
	case n < 30:
		c.take("claim")
	case n < 36:
		c.takeMany()
	default:
		if t := c.pick(); t != nil {
			c.meddle(t, n)
		}
	}
}

// meddle does something to what anybody may have.
func (c *fighter) meddle(t *ticket, n int) {
	switch {
	case n < 52:
		c.accept(t)
	case n < 56:
		c.claimOffer(t)
	case n < 64:
		c.reject(t)
	case n < 74:
		c.renew(t)
	case n < 88:
		c.release(t)
	default:
		c.releaseOwn(t)
	}
}

// pick takes a ticket that any client posted, most often one of the last.
func (c *fighter) pick() *ticket {
	back := min(c.random.IntN(64), c.random.IntN(64))
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board[(c.posted-1-back+2*len(c.board))%len(c.board)]
}

// chance is true once in n times.
func (c *fighter) chance(n int) bool { return c.random.IntN(n) == 0 }

// anyName is a name as CI has them.
func (c *fighter) anyName() string { return fmt.Sprintf("team/job:%d", c.random.IntN(c.names)) }

func (c *fighter) anyPort() int { return c.all[c.random.IntN(len(c.all))] }

// forLease is how something is asked for with a lease, and whether that is too long for the service.
func (c *fighter) forLease(lease int64) (how string, tooLong bool) {
	if c.maxLease != 0 && lease > c.maxLease {
		return "for too long", true
	}
	return "for a lease", false
}

// labels are those of a request with a job, in its body.
func labels(job string) string {
	if job == "" {
		return ""
	}
	return fmt.Sprintf(`,"labels":{"job":%q}`, job)
}

// want is what a client asks for, in JSON, and as the event that it will be.
func (c *fighter) want(act string) (event, string) {
	e := event{act: act, name: c.anyName(), secret: uuid.NewString()}
	if c.chance(3) {
		e.job = strconv.Itoa(c.id)
	}
	body := fmt.Sprintf(`{"name":%q,"secret":%q`, e.name, e.secret) + labels(e.job)
	port := c.anyPort()
	switch c.random.IntN(10) {
	case 0:
		e.how, e.port = "of a port", port
		body += fmt.Sprintf(`,"port":%d`, port)
	case 1:
		e.how = "of any, best this"
		body += fmt.Sprintf(`,"prefer":%d`, port)
	case 2, 3:
		e.lease = 1000 + c.random.Int64N(200)
		if c.maxLease != 0 && c.chance(10) {
			e.lease = c.maxLease + 1
		}
		e.how, e.impossible = c.forLease(e.lease)
		body += fmt.Sprintf(`,"lease":%g`, float64(e.lease)/1000)
	case 4, 5:
		e.how, e.count = "of a block", 2+c.random.IntN(2)
		if c.chance(5) {
			e.how, e.count, e.impossible = "of too many", c.ports+1+c.random.IntN(100-c.ports), true
		}
		body += fmt.Sprintf(`,"count":%d`, e.count)
	case 6:
		if act == "claim" {
			e.secret, e.drawn = "", true
			body = fmt.Sprintf(`{"name":%q`, e.name) + labels(e.job)
			if c.chance(2) {
				e.how = "of what exists"
				body += `,"existing":true`
			}
		}
	case 7:
		e.how, e.align = "of a multiple", 2
		body += `,"align":2`
	}
	return e, body + "}"
}

// take asks for one port, and again where the answer might have got lost.
func (c *fighter) take(act string) {
	e, body := c.want(act)
	query := ""
	if e.how != "of a port" && c.linesUp() && c.chance(4) {
		if e.how = "in line"; e.impossible {
			e.how = "of too many, in line"
		} else if e.count > 1 {
			e.how = "of a block, in line"
		}
		e.inLine, query = true, fmt.Sprintf("?wait=%dms", 1+c.random.IntN(60))
	}
	ask := request{method: "POST", path: c.routeOf(act) + query, body: body}
	got := c.call(ask, e)[0]
	if !succeeded(got) {
		return
	}
	if !e.drawn && c.chance(5) {
		e.how, e.port = "again", got.port
		if got = c.call(ask, e)[0]; !succeeded(got) {
			return
		}
	}
	c.post(c.ticketOf(got))
}

func succeeded(e event) bool { return e.code == "201" || e.code == "200" }

func (c *fighter) ticketOf(got event) *ticket {
	t := &ticket{secret: got.secret, name: got.name, port: got.port, count: got.count, job: got.job, drawn: got.drawn}
	t.fence.Store(got.fence)
	return t
}

func (c *fighter) routeOf(act string) string {
	if act == "claim" {
		return "/ports"
	}
	return "/offers"
}

// takeMany asks for several ports at once: all or none.
func (c *fighter) takeMany() {
	act, how, query := []string{"offer", "claim"}[c.random.IntN(2)], "of many", ""
	if c.linesUp() && c.chance(3) {
		how, query = "of many, in line", fmt.Sprintf("?wait=%dms", 1+c.random.IntN(60))
	}
	var asked []event
	var bodies []string
	for range 2 + c.random.IntN(2) {
		e, body := c.want(act)
		if query != "" && e.port != 0 || slices.ContainsFunc(asked, func(a event) bool { return a.name == e.name || e.port != 0 && a.port == e.port }) {
			continue // the call would be refused as a whole
		}
		e.how, e.inLine = how, query != ""
		asked, bodies = append(asked, e), append(bodies, body)
	}
	if len(asked) == 0 {
		return
	}
	ask := request{method: "POST", path: c.routeOf(act) + query, body: "[" + strings.Join(bodies, ",") + "]"}
	if got := c.call(ask, asked...); succeeded(got[0]) && c.chance(2) && !slices.ContainsFunc(asked, func(e event) bool { return e.drawn }) {
		c.takeManyAgain(ask, asked, got)
	} else if succeeded(got[0]) {
		for _, e := range got {
			c.post(c.ticketOf(e))
		}
	}
}

// takeManyAgain repeats a call. Where one of its ports was released meanwhile it is given another, and only that is new.
func (c *fighter) takeManyAgain(ask request, asked, first []event) {
	again := slices.Clone(asked)
	for i := range again {
		again[i].port, again[i].count = first[i].port, first[i].count
	}
	got := c.call(ask, again...)
	if !succeeded(got[0]) {
		return
	}
	for i, e := range got {
		if e.fence == first[i].fence {
			c.history[len(c.history)-len(got)+i].code = "200"
		} else {
			c.history[len(c.history)-len(got)+i].code = "201"
		}
		c.post(c.ticketOf(e))
	}
}

func (c *fighter) accept(t *ticket) {
	e := event{act: "accept", name: t.name, secret: t.secret, port: t.port, count: t.count, job: t.job, drawn: t.drawn}
	q := request{method: "POST", path: "/offers/" + t.secret + "/accept"}
	if c.chance(3) {
		e.lease = 1000 + c.random.Int64N(500)
		e.how, e.impossible = c.forLease(e.lease)
		q.body = fmt.Sprintf(`{"lease":"%dms"}`, e.lease)
	}
	if got := c.call(q, e)[0]; got.fence != 0 {
		t.fence.Store(got.fence)
	}
}

// claimOffer claims what was offered.
func (c *fighter) claimOffer(t *ticket) {
	e := event{act: "claim", how: "of an offer", name: t.name, secret: t.secret, port: t.port, count: t.count, job: t.job}
	got := c.call(request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q,"secret":%q%s}`, t.name, t.secret, labels(t.job))}, e)[0]
	if got.code == "201" && (got.port != t.port || got.count != t.count || t.drawn) {
		c.post(c.ticketOf(got)) // the allocation had ended, and this is another
	} else if got.fence != 0 {
		t.fence.Store(got.fence)
	}
}

func (c *fighter) reject(t *ticket) {
	e := event{act: "reject", name: t.name, secret: t.secret, port: t.port, count: t.count, drawn: t.drawn}
	done := c.call(request{method: "DELETE", path: "/offers/" + t.secret}, e)[0]
	if done.code == "204" && c.chance(4) {
		again := event{act: "offer", name: t.name, secret: t.secret, port: t.port, count: t.count}
		c.call(request{method: "POST", path: "/offers", body: fmt.Sprintf(`{"name":%q,"secret":%q}`, t.name, t.secret)}, again)
	}
}

// holder names what a ticket is for, by port or by name.
func (c *fighter) holder(t *ticket, e event) (event, string) {
	if e.byPort = c.chance(2); e.byPort {
		e.port = t.port
		return e, "/ports/" + strconv.Itoa(t.port)
	}
	e.name = t.name
	return e, "/ports/" + url.PathEscape(t.name)
}

func (c *fighter) renew(t *ticket) {
	e, path := c.holder(t, event{act: "renew", secret: t.secret, job: t.job})
	if c.chance(4) {
		e.how, e.foreign, e.secret = "with another secret", true, uuid.NewString()
	}
	body := fmt.Sprintf(`{"secret":%q}`, e.secret)
	if !c.chance(3) {
		e.lease = 1000 + c.random.Int64N(500)
		_, e.impossible = c.forLease(e.lease)
		body = fmt.Sprintf(`{"secret":%q,"lease":"%dms"}`, e.secret, e.lease)
	}
	c.call(request{method: "POST", path: path + "/renew", body: body}, e)
}

// release releases whatever is there, or what has a fence.
func (c *fighter) release(t *ticket) {
	if c.chance(20) { // what nobody may know of any more
		t = &ticket{name: c.anyName(), port: c.anyPort()}
	}
	e, path := c.holder(t, event{act: "release"})
	if c.chance(2) {
		e.condition = t.fence.Load() // 0, where nobody accepted it yet: then without If-Match
	}
	if c.chance(10) {
		e.how, e.inUse = "in use", true
		path += "?reason=in_use"
	}
	c.call(request{method: "DELETE", path: path, fence: e.condition}, e)
}

// releaseOwn releases what a secret has, and sometimes finds that it may do so again, and that it can claim no more.
func (c *fighter) releaseOwn(t *ticket) {
	e, path := c.holder(t, event{act: "release own", secret: t.secret, drawn: t.drawn})
	q := request{method: "DELETE", path: path, secret: t.secret}
	if c.call(q, e)[0].code != "204" {
		return
	}
	if c.chance(3) {
		e.how = "again"
		c.call(q, e)
	}
	switch c.random.IntN(6) {
	case 0, 1:
		c.takePort(t.port) // which was there a moment ago
	case 2:
		claim := event{act: "claim", how: "again", name: t.name, secret: t.secret, port: t.port, job: t.job}
		c.call(request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q,"secret":%q%s}`, t.name, t.secret, labels(t.job))}, claim)
	}
}

// takePort asks for a certain port.
func (c *fighter) takePort(port int) {
	e := event{
		act: []string{"offer", "claim"}[c.random.IntN(2)], how: "of a port",
		name: c.anyName(), secret: uuid.NewString(), port: port,
	}
	body := fmt.Sprintf(`{"name":%q,"secret":%q,"port":%d}`, e.name, e.secret, port)
	if got := c.call(request{method: "POST", path: c.routeOf(e.act), body: body}, e)[0]; succeeded(got) {
		c.post(c.ticketOf(got))
	}
}
