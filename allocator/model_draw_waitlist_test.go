package allocator

import (
	"slices"
	"time"

	"pgregory.net/rapid"
)

// full are the services of a pool that have no free port, or a waitlist.
func (r *run) full(pool string) (full []string) {
	for name, s := range r.model.pool(pool).services {
		if r.model.free(r.model.pool(pool), s) == 0 || len(r.model.waiting(r.model.pool(pool), s)) > 0 {
			full = append(full, name)
		}
	}
	slices.Sort(full)
	return full
}

// join draws a call that waits where it gets nothing: mostly where it has to.
func (r *run) join(t *rapid.T) {
	c := r.target(t, rapid.SampledFrom([]string{"offer", "claim"}).Draw(t, "act"))
	if full := r.full(c.pool); len(full) > 0 {
		c.service = rapid.SampledFrom(full).Draw(t, "full")
	}
	r.joinLine(t, c)
}

func (r *run) joinLine(t *rapid.T, c request) {
	c.many = rapid.IntRange(0, 7).Draw(t, "list") == 0
	r.fill(t, &c, nil, false)
	wants := make([]Request, len(c.wants))
	for i, w := range c.wants {
		wants[i] = w.Request
	}
	r.tickets++
	server := rapid.SampledFrom(modelServers).Draw(t, "server")
	c.ticket, c.stay = ticketOf(server, r.tickets, wants), true
	r.step(t, c)
}

// waiter draws a call that joined the waitlist: mostly one that is in there.
func (r *run) waiter(t *rapid.T) request {
	if len(r.queue) == 0 {
		t.Skip("nobody waits")
	}
	in := slices.DeleteFunc(slices.Clone(r.queue), func(c request) bool {
		s := r.model.pool(c.pool).services[c.service]
		return s == nil || s.inLine(c.ticket) < 0
	})
	called := slices.DeleteFunc(slices.Clone(in), func(c request) bool {
		p := r.model.pool(c.pool)
		tickets, _ := r.model.called(p, p.services[c.service])
		return !slices.Contains(tickets, c.ticket)
	})
	if len(called) > 0 && rapid.Bool().Draw(t, "called") {
		in = called
	} else if len(in) == 0 || rapid.IntRange(0, 9).Draw(t, "left") == 0 {
		in = r.queue
	}
	return in[len(in)-1-rapid.IntRange(0, min(len(in)-1, 3)).Draw(t, "waiter, back")]
}

// ask lets a call that waits ask again.
func (r *run) ask(t *rapid.T) {
	c := r.waiter(t)
	c.stay = rapid.IntRange(0, 5).Draw(t, "stay") > 0
	r.step(t, c)
}

// letIn widens the range of a service with a waitlist, and lets some who wait there ask.
func (r *run) letIn(t *rapid.T) {
	c := r.waiter(t)
	s := r.model.pool(c.pool).services[c.service]
	if s == nil || len(r.model.waiting(r.model.pool(c.pool), s)) == 0 {
		t.Skip("nobody waits there")
	}
	r.joinLine(t, request{act: "offer", pool: c.pool, service: c.service})
	r.step(t, request{
		act: "put", pool: c.pool, service: c.service, start: s.start, end: s.end + 2, cooldown: time.Duration(s.cooldown) * time.Millisecond,
	})
	for range 2 {
		r.step(t, r.waiter(t))
	}
}

func (r *run) beat(t *rapid.T) {
	c := r.waiter(t)
	r.step(t, request{act: "beat", pool: c.pool, service: c.service, server: rapid.SampledFrom(modelServers).Draw(t, "server")})
}

func (r *run) lookAtLine(t *rapid.T) {
	c := r.waiter(t)
	c = request{act: "look", pool: c.pool, service: c.service}
	for _, other := range r.queue[max(0, len(r.queue)-6):] {
		if other.pool == c.pool && other.service == c.service && rapid.Bool().Draw(t, "asked for") {
			c.tickets = append(c.tickets, other.ticket)
		}
	}
	r.step(t, c)
}

func (r *run) leave(t *rapid.T) {
	c := r.waiter(t)
	r.step(t, request{act: "leave", pool: c.pool, service: c.service, ticket: c.ticket})
}
