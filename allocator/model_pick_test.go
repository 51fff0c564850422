package allocator

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

// Which ports a call gets.

// picker picks ports for one call. Nothing is taken before all are found.
type picker struct {
	m      *model
	s      *modelService
	picked map[int]bool
}

// pick picks the ports of the wants that have none yet: want -> its first port.
func (m *model) pick(s *modelService, c request, missing []int) (ports []int, refusal answer) {
	for _, i := range missing {
		if refusal := c.outside(i, s); refusal.Code != "" {
			return nil, refusal
		}
		for _, h := range m.holds(s) {
			if h.name == c.wants[i].Name {
				return nil, c.fault(i, "name", CodeNameTaken)
			}
		}
	}
	if !m.isTurn(s, c.ticket) {
		m.note("not its turn")
		return nil, m.noneFree(s, c, missing, false)
	}
	if len(s.waiting(m.now)) > 0 {
		m.note("its turn")
	}
	p := &picker{m, s, map[int]bool{}}
	ports, refusal, found := p.all(c, missing)
	if refusal.Code != "" {
		return nil, refusal
	}
	if !found {
		return nil, m.noneFree(s, c, missing, true)
	}
	return ports, answer{}
}

// outside refuses a port that the service does not have.
func (c request) outside(i int, s *modelService) answer {
	w := c.wants[i]
	if w.Port > 0 && (w.Port < s.start || w.Port+w.count()-1 > s.end) {
		return c.fault(i, "port", CodeInvalid)
	}
	if w.Prefer > 0 && (w.Prefer < s.start || w.Prefer > s.end) {
		return c.fault(i, "prefer", CodeInvalid)
	}
	return answer{}
}

// noneFree is the answer where a call finds no ports, or must leave them to others: it has to wait, or it fails.
func (m *model) noneFree(s *modelService, c request, missing []int, turn bool) answer {
	if c.stay {
		m.join(s, c)
		return answer{Waits: true}
	}
	if turn {
		return answer{Code: CodeExhausted, RetryAfter: m.nextFree(s)}
	}
	for _, i := range missing {
		if c.wants[i].Port > 0 {
			return c.fault(i, "port", CodePortTaken)
		}
	}
	return answer{Code: CodeExhausted}
}

// nextFree returns how long it takes until a port comes free by itself; 0 where none will.
func (m *model) nextFree(s *modelService) (wait ms) {
	for _, port := range s.ports {
		if left := port.freeIn(m.now, s); left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
	}
	return wait
}

// freeIn returns how long it takes until a port comes free by itself; 0 where it is, or will not.
func (port *modelPort) freeIn(now ms, s *modelService) ms {
	if port.hold.lives(now) && port.hold.expires == 0 {
		return 0
	}
	return max(0, port.score+s.cooldown-now)
}

// all picks certain ports first, then blocks, then any.
func (p *picker) all(c request, missing []int) (ports []int, refusal answer, found bool) {
	ports = make([]int, len(c.wants))
	for _, i := range missing {
		w := c.wants[i]
		if w.Port > 0 {
			if left, ok := p.certain(w.Port, w.count()); !ok {
				refusal = c.fault(i, "port", CodePortTaken)
				refusal.RetryAfter = left
				return nil, refusal, false
			}
			ports[i] = w.Port
		} else if w.Prefer > 0 && p.isFree(w.Prefer) {
			p.m.note("got what it prefers")
			p.take(w.Prefer, 1)
			ports[i] = w.Prefer
		} else if w.Prefer > 0 {
			p.m.note("got another than it prefers")
		}
	}
	for _, i := range missing {
		if w := c.wants[i]; w.Port == 0 && w.count() > 1 {
			if ports[i] = p.block(w.count(), p.s.chosen[i]); ports[i] == 0 {
				return nil, answer{}, false
			}
		}
	}
	for _, i := range missing {
		if ports[i] == 0 {
			if ports[i] = p.any(); ports[i] == 0 {
				return nil, answer{}, false
			}
		}
	}
	return ports, answer{}, true
}

func (p *picker) take(port, count int) {
	for number := port; number < port+count; number++ {
		p.picked[number] = true
	}
}

func (p *picker) isFresh(number int) bool {
	return number >= p.s.start && number <= p.s.end && p.s.ports[number] == nil && !p.picked[number]
}

func (p *picker) isFree(number int) bool {
	port := p.s.ports[number]
	return p.isFresh(number) || port != nil && port.isFree(p.m.now, p.s) && !p.picked[number]
}

// certain picks just these ports. Where it cannot, it tells how long the first that is not free stays so, if that is known.
func (p *picker) certain(port, count int) (left ms, ok bool) {
	for number := port; number < port+count; number++ {
		if !p.isFree(number) {
			if p.picked[number] || p.s.ports[number] == nil {
				return 0, false
			}
			return p.s.ports[number].freeIn(p.m.now, p.s), false
		}
	}
	p.take(port, count)
	return 0, true
}

// givenBack are the free ports that were handed out before.
func (p *picker) givenBack() (ports []int) {
	for number := range p.s.ports {
		if p.isFree(number) {
			ports = append(ports, number)
		}
	}
	return ports
}

// any picks the port that has been free the longest, of equals the first in Redis's order; where there is none, the
// lowest fresh one; 0 where there is none either.
func (p *picker) any() (port int) {
	if back := p.givenBack(); len(back) > 0 {
		port = slices.MinFunc(back, func(a, b int) int {
			return cmp.Or(cmp.Compare(p.s.ports[a].score, p.s.ports[b].score), cmp.Compare(strconv.Itoa(a), strconv.Itoa(b)))
		})
		p.noteUse(p.s.ports[port])
	} else if port = p.s.start; true {
		for port <= p.s.end && !p.isFresh(port) {
			port++
		}
		if port > p.s.end {
			return 0
		}
	}
	p.take(port, 1)
	return port
}

// noteUse notes what a port that was given back had been.
func (p *picker) noteUse(port *modelPort) {
	switch {
	case port.hold != nil && port.hold.fence > 0:
		p.m.note("picked after a lease")
	case port.quarantined:
		p.m.note("picked after its quarantine")
	case p.s.cooldown > 0:
		p.m.note("picked after it cooled")
	}
	for _, other := range p.s.ports {
		if !other.hold.lives(p.m.now) && other.score <= p.m.now && !other.isFree(p.m.now, p.s) {
			p.m.note("passed over what cools")
			break
		}
	}
}

// runs are the runs of fresh ports.
func (p *picker) runs() (runs []span) {
	for number := p.s.start; number <= p.s.end; number++ {
		if last := len(runs) - 1; !p.isFresh(number) {
			continue
		} else if last >= 0 && runs[last].to == number-1 {
			runs[last].to = number
		} else {
			runs = append(runs, span{number, number})
		}
	}
	return runs
}

// block picks the lowest ports of the shortest run of fresh ones that is long enough. Where there is none, it makes fresh
// what was given back, and looks again. It returns 0 where there is none all the same. chosen is the run that the store
// took where it is late to know how long each is: that one need not be the shortest.
func (p *picker) block(count, chosen int) int {
	first := p.takeRun(count, chosen)
	if back := p.givenBack(); first == 0 && len(back) > 0 {
		p.m.note("gathered")
		maps.DeleteFunc(p.s.ports, func(number int, _ *modelPort) bool { return slices.Contains(back, number) })
		if first = p.takeRun(count, chosen); first == 0 {
			p.m.note("gathered in vain")
		}
	} else if first > 0 {
		p.m.note("took a run of fresh ports")
	}
	return first
}

func (p *picker) takeRun(count, chosen int) int {
	fit := slices.DeleteFunc(p.runs(), func(run span) bool { return run.to-run.from+1 < count })
	if len(fit) == 0 {
		return 0
	}
	run := slices.MinFunc(fit, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.to-a.from, b.to-b.from), cmp.Compare(strconv.Itoa(a.to), strconv.Itoa(b.to)))
	})
	if i := slices.IndexFunc(fit, func(run span) bool { return run.from == chosen }); i >= 0 && p.s.lateRoom {
		run = fit[i]
	}
	p.take(run.from, count)
	return run.from
}
