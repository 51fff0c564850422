package allocator

import (
	"slices"
	"strconv"
)

// What becomes of an offer and of an allocation: accepted, rejected, renewed, released, or forgotten.

// known is what the store remembers of a secret.
type known struct {
	service, name string
	owner         string
	port, count   int
	expires       ms     // when it opens nothing any more
	forgotten     ms     // when the store deletes it, by the time up to which it has swept
	hold          *hold  // of an offer
	ended         string // "rejected" or "released"; "" for neither
	claimed       bool   // it is of a claim, which may be made again when its allocation is gone
}

// lookUp says what a secret is to a service: "" for nothing, elsewhere, open, accepted, rejected, released, or over.
func (m *model) lookUp(p *modelPool, service, secret string) (state string, k *known, h *hold) {
	k = p.secrets[secret]
	if k == nil || m.swept >= k.forgotten || m.now >= k.expires {
		return "", nil, nil
	}
	if k.service != service {
		return "elsewhere", k, nil
	}
	if k.ended != "" {
		return k.ended, k, nil
	}
	if s := p.services[service]; s != nil && s.ports[k.port] != nil {
		switch h = s.ports[k.port].hold; {
		case !h.lives(m.now) || h.secret != secret || h.port != k.port:
		case h.fence > 0:
			return "accepted", k, h
		case h == k.hold:
			return "open", k, h
		}
	}
	if k.claimed {
		return "", nil, nil
	}
	return "over", k, nil
}

// remember keeps a secret until a time, or until it opens nothing any more where that comes first.
func (m *model) remember(p *modelPool, secret string, k *known, until ms) {
	late := m.now - m.swept
	k.forgotten = min(until, k.expires) - late + m.grace
	p.secrets[secret] = k
}

// rememberHold is remember for a secret that stands for a hold.
func (m *model) rememberHold(p *modelPool, service string, h *hold, expires ms) {
	k := &known{service: service, name: h.name, owner: h.owner, port: h.port, count: h.count, expires: expires, hold: h}
	m.remember(p, h.secret, k, expires)
}

// closed is the error of a secret that opens nothing.
func (p *modelPool) closed(service, state string) answer {
	switch {
	case state == "accepted":
		return answer{Code: CodeOfferAccepted}
	case state == "rejected":
		return answer{Code: CodeOfferRejected}
	case p.services[service] == nil:
		return answer{Code: CodeServiceNotFound}
	}
	return answer{Code: CodeOfferNotFound}
}

func (m *model) readOffer(p *modelPool, c request) answer {
	state, k, h := m.lookUp(p, c.service, c.secret)
	if m.isAnothers(c, state, k) {
		return answer{Code: CodeNotOwner}
	}
	if state != "open" {
		return p.closed(c.service, state)
	}
	return answer{Offers: []Offer{h.offer(c.service)}}
}

func (m *model) accept(p *modelPool, c request) answer {
	state, k, h := m.lookUp(p, c.service, c.secret)
	if m.isAnothers(c, state, k) {
		return answer{Code: CodeNotOwner}
	}
	if state == "accepted" {
		return answer{Allocations: []Allocation{h.allocation(c.service)}}
	}
	if state != "open" {
		return p.closed(c.service, state)
	}

	if s := p.services[c.service]; s.leases.isTooLong(c.lease) {
		m.note("accepted for too long a lease")
		return answer{Code: CodeInvalid, Fields: []string{"lease"}}
	}
	if minute := m.now + 60_000; minute < k.expires {
		m.remember(p, c.secret, k, minute)
	}
	lease := c.lease.Milliseconds()
	if lease == 0 {
		lease = h.lease
	}
	accepted := m.allocate(p, p.services[c.service], c, hold{
		name: h.name, secret: h.secret, owner: h.owner, labels: h.labels, port: h.port, count: h.count, lease: lease,
	})
	return answer{Created: true, Allocations: []Allocation{accepted.allocation(c.service)}}
}

// allocate makes ports an allocation.
func (m *model) allocate(p *modelPool, s *modelService, c request, h hold) *hold {
	p.fence = p.nextFence(m.now)
	h.fence, h.created = p.fence, m.now
	if h.lease > 0 {
		h.expires = m.now + h.lease
	}
	s.put(&h)
	s.history.add("allocated", c, &h)
	return &h
}

// nextFence is the time in microseconds, of which the model knows no more than the milliseconds, or the one after the last.
func (p *modelPool) nextFence(now ms) int64 {
	next := max(p.fence+1, now*1000)
	for _, given := range p.given {
		if given > p.fence && given/1000 == now {
			return given
		}
	}
	return next
}

// put writes a hold at all of its ports.
func (s *modelService) put(h *hold) {
	for number := h.port; number < h.port+h.count; number++ {
		s.ports[number] = &modelPort{hold: h, score: h.expires}
	}
}

// giveBack writes at all ports of a hold that nobody has them any more.
func (s *modelService) giveBack(h *hold, port modelPort) {
	for number := h.port; number < h.port+h.count; number++ {
		back := port
		s.ports[number] = &back
	}
}

func (m *model) reject(p *modelPool, c request) answer {
	state, k, h := m.lookUp(p, c.service, c.secret)
	if m.isAnothers(c, state, k) {
		return answer{Code: CodeNotOwner}
	}
	if state == "rejected" {
		return answer{}
	}
	if state != "open" {
		return p.closed(c.service, state)
	}

	s := p.services[c.service]
	back := modelPort{score: m.now - s.cooldown}
	if c.inUse {
		back = p.quarantine(h, m.now+quarantine.Milliseconds())
		m.note("quarantined")
		s.history.addInUse(c, h)
	}
	s.giveBack(h, back)
	s.goOnCooling(p, h)
	k.ended = "rejected"
	m.remember(p, c.secret, k, m.now+60_000)
	return answer{Created: true}
}

// quarantine notes that the ports of a hold rest until a time.
func (p *modelPool) quarantine(h *hold, until ms) modelPort {
	for number := h.port; number < h.port+h.count; number++ {
		p.rest[number] = until
	}
	return modelPort{rests: until}
}

// mayNotChange is the answer to a call that may not change an allocation by its secret; nil if it may.
func (m *model) mayNotChange(h *hold, c request) *answer {
	switch {
	case h == nil:
		return &answer{Code: CodePortNotFound}
	case h.secret != c.secret:
		return &answer{Code: CodeSecretMismatch}
	case m.mayNot(c.caller, h.owner):
		return &answer{Code: CodeNotOwner}
	}
	return nil
}

func (m *model) renew(s *modelService, c request) answer {
	h := m.find(s, c.holder)
	if refused := m.mayNotChange(h, c); refused != nil {
		return *refused
	}
	switch {
	case c.lease == 0 && h.lease == 0 && s.leases.ofNone() == 0, s.leases.isTooLong(c.lease):
		return answer{Code: CodeInvalid, Fields: []string{"lease"}}
	}

	if h.lease == 0 {
		m.note("renewed what had no lease")
	} else {
		m.note("renewed what had one")
	}
	renewed := *h
	renewed.lease = m.renewal(s, c.lease, h.lease)
	renewed.expires = m.now + renewed.lease
	s.put(&renewed)
	if h.owner != "" && h.owner != c.caller.Owner {
		s.history.add("renewed", c, &renewed)
	} else {
		s.history.leases[h.fence] = &renewed
	}
	return answer{Allocations: []Allocation{renewed.allocation(c.service)}}
}

func (m *model) release(p *modelPool, s *modelService, c request) answer {
	if m.released(p, c) {
		m.note("released again")
		return answer{}
	}
	if s == nil {
		return answer{Code: CodeServiceNotFound}
	}
	h := m.find(s, c.holder)
	switch {
	case h == nil:
		return answer{Code: CodePortNotFound}
	case c.secret != "" && h.secret != c.secret:
		return answer{Code: CodeSecretMismatch}
	case c.secret == "" && m.mayNot(c.caller, h.owner):
		return answer{Code: CodeNotOwner}
	case len(c.fences) > 0 && !slices.Contains(c.fences, h.fence):
		return answer{Code: CodePreconditionFailed}
	}

	back := modelPort{score: m.now}
	s.history.add("released", c, h)
	if c.inUse {
		back = p.quarantine(h, m.now+max(quarantine.Milliseconds(), s.cooldown))
		m.note("released in use")
		s.history.addInUse(c, h)
	}
	s.giveBack(h, back)
	if c.secret != "" {
		m.note("released by secret")
		k := &known{service: c.service, name: h.name, owner: h.owner, port: h.port, count: h.count, expires: m.now + 60_000, ended: "released"}
		m.remember(p, c.secret, k, k.expires)
	}
	return answer{Created: c.inUse}
}

// released reports whether the secret has released this holder's allocation a short while ago.
func (m *model) released(p *modelPool, c request) bool {
	state, k, _ := m.lookUp(p, c.service, c.secret)
	if state != "released" {
		return false
	}
	number, _ := strconv.Atoi(c.holder)
	return c.holder == k.name && number == 0 || number >= k.port && number < k.port+k.count
}

// find returns the allocation of a holder, who is named or is one of its ports, as digits are; nil where there is none.
func (m *model) find(s *modelService, holder string) *hold {
	if port, err := strconv.Atoi(holder); err == nil {
		return m.first(s, func(number int, _ *hold) bool { return number == port })
	}
	return m.named(s, holder)
}

// named returns the allocation of a name; nil where there is none.
func (m *model) named(s *modelService, name string) *hold {
	return m.first(s, func(_ int, h *hold) bool { return h.name == name })
}

func (m *model) first(s *modelService, is func(number int, h *hold) bool) *hold {
	for number, port := range s.ports {
		if h := port.hold; h != nil && h.fence > 0 && is(number, h) {
			if h.lives(m.now) {
				return h
			}
			m.note("the lease has run out")
		}
	}
	return nil
}
