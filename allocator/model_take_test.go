package allocator

import "fmt"

// How a call takes ports: an offer or a claim, of one want or of a list; all that is wanted, or nothing.

// take answers a call that takes ports. One that has its answer has left the waitlist.
func (m *model) take(p *modelPool, c request) answer {
	got := m.taking(p, c)
	if s := p.services[c.service]; s != nil && !got.Waits {
		s.drop(c.ticket)
	}
	return got
}

func (m *model) taking(p *modelPool, c request) answer {
	there, missing, refusal := m.known(p, c)
	if refusal.Code != "" {
		return refusal
	}
	s := p.services[c.service]
	if refusal := m.tooLong(s, c, there); refusal.Code != "" {
		return refusal
	}
	var picked []int
	if len(missing) > 0 {
		if s == nil {
			return answer{Code: CodeServiceNotFound}
		}
		if picked, refusal = m.pick(p, s, c, missing); refusal.Code != "" || refusal.Waits {
			return refusal
		}
	}

	got := answer{}
	for i, w := range c.wants {
		h := there[i]
		if h == nil {
			s.setLast(m, c, w, picked[i])
		}
		switch {
		case c.act == "offer" && h == nil:
			h = m.makeOffer(p, s, c, w, picked[i])
			got.Created = true
		case c.act == "claim" && h == nil:
			h = m.claim(p, s, c, w, hold{name: w.Name, secret: w.Secret, owner: c.caller.Owner, port: picked[i], count: w.count()})
			got.Created = true
		case c.act == "claim" && h.fence == 0: // the offer is half of what is wanted
			h = m.claim(p, s, c, w, *h)
			got.Created = true
		}
		if c.act == "offer" {
			got.Offers = append(got.Offers, h.offer(c.service))
		} else {
			allocation := h.allocation(c.service)
			if h.secret == w.Secret {
				allocation.Secret = w.Secret
			}
			got.Allocations = append(got.Allocations, allocation)
		}
	}
	return got
}

// known finds what each want has already, by its secret, and which wants have nothing yet.
func (m *model) known(p *modelPool, c request) (there map[int]*hold, missing []int, refusal answer) {
	there = map[int]*hold{}
	for i, w := range c.wants {
		if !w.own {
			if there[i] = m.existing(p, c.service, w); there[i] == nil {
				missing = append(missing, i)
			}
			continue
		}
		state, k, h := m.lookUp(p, c.service, w.Secret)
		switch {
		case state == "elsewhere", state != "" && k.name != w.Name:
			return nil, nil, c.fault(i, "secret", CodeInvalid)
		case state != "" && ofAnother(c, state, k.owner):
			return nil, nil, c.fault(i, "secret", CodeNotOwner)
		case state == "rejected":
			return nil, nil, c.fault(i, "secret", CodeOfferRejected)
		case state == "released", state == "over":
			m.note("its secret is of what was " + state)
			return nil, nil, c.fault(i, "secret", CodeOfferAccepted)
		}
		if h == nil && c.act == "claim" {
			if h = m.claimed(p, c.service, w); h != nil {
				m.note("claimed long ago")
				if ofAnother(c, "accepted", h.owner) {
					return nil, nil, c.fault(i, "secret", CodeNotOwner)
				}
			}
		}
		if h == nil {
			if there[i] = m.existing(p, c.service, w); there[i] == nil {
				missing = append(missing, i)
			}
			continue
		}
		switch {
		case w.Port != nil && *w.Port != h.port:
			return nil, nil, c.fault(i, "port", CodeInvalid)
		case w.Count != nil && *w.Count != h.count:
			return nil, nil, c.fault(i, "count", CodeInvalid)
		case h.port%w.align() != 0:
			return nil, nil, c.fault(i, "align", CodeInvalid)
		case state == "accepted" && c.act == "offer":
			m.note("its secret is of what was accepted")
			return nil, nil, c.fault(i, "secret", CodeOfferAccepted)
		}
		there[i] = h
	}
	return there, missing, answer{}
}

// claimed returns the allocation of a want's name where it has the want's secret, which is known for as long as it lives.
func (m *model) claimed(p *modelPool, service string, w want) *hold {
	if s := p.services[service]; s != nil {
		if h := m.named(s, w.Name); h != nil && h.secret == w.Secret {
			return h
		}
	}
	return nil
}

// existing returns the allocation of a want's name, whoever has it, if that will do.
func (m *model) existing(p *modelPool, service string, w want) *hold {
	s := p.services[service]
	if s == nil || !w.Existing {
		return nil
	}
	h := m.named(s, w.Name)
	if h != nil {
		m.note("existed")
	}
	return h
}

// fault is the error of one want. It says which, and what of it.
func (c request) fault(i int, field string, code Code) answer {
	return c.faults(code, []string{c.field(i, field)})
}

func (c request) faults(code Code, fields []string) answer { return answer{Code: code, Fields: fields} }

func (c request) field(i int, field string) string { return fmt.Sprintf("[%d].%s", i, field) }

func (m *model) makeOffer(p *modelPool, s *modelService, c request, w want, port int) *hold {
	h := &hold{
		name: w.Name, secret: w.Secret, owner: c.caller.Owner, labels: w.Labels, port: port, count: w.count(), created: m.now, lease: m.leaseOf(s, w),
		expires: m.now + c.ttl.Milliseconds(),
	}
	m.rememberHold(p, c.service, h, h.expires)
	s.put(h)
	return h
}

// claim makes an allocation of ports that were picked, or of an offer.
func (m *model) claim(p *modelPool, s *modelService, c request, w want, of hold) *hold {
	if w.Lease != nil {
		of.lease = w.Lease.Milliseconds()
	} else if of.lease > 0 {
		m.note("claimed with the lease of its offer")
	} else if of.created == 0 {
		of.lease = m.leaseOf(s, w)
	}
	if w.Labels != "" {
		of.labels = w.Labels
	} else if of.labels != "" {
		m.note("claimed with the labels of its offer")
	}
	of.expires = 0
	h := m.allocate(p, s, c, of)
	if w.own {
		m.rememberHold(p, c.service, h, m.now+remembered.Milliseconds())
		p.secrets[h.secret].claimed = of.created == 0
	}
	return h
}
