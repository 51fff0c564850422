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
func (m *model) pick(p *modelPool, s *modelService, c request, missing []int) (ports []int, refusal answer) {
	if refusal := c.impossible(s, missing); refusal.Code != "" {
		return nil, refusal
	}
	total, row := 0, 1
	for _, i := range missing {
		total, row = total+c.wants[i].count(), max(row, c.wants[i].surely())
	}
	if m.isOverQuota(p, c.caller, total) {
		return nil, answer{Code: CodeQuotaExceeded}
	}
	waited := len(m.waiting(p, s)) > 0
	turn := m.mayTake(p, s, c.ticket, total, row)
	picker := &picker{m, s, map[int]bool{}}
	if refusal := picker.refused(c, missing, turn); refusal.Code != "" {
		return nil, refusal
	}
	if !turn {
		m.note("not its turn")
		return nil, m.noneFree(p, s, c, false)
	}
	if waited {
		m.note("its turn")
	}
	ports, found := picker.all(c, missing)
	if !found {
		return nil, m.noneFree(p, s, c, true)
	}
	return ports, answer{}
}

// impossible refuses ports that the service does not have, and more than it has.
func (c request) impossible(s *modelService, missing []int) answer {
	var fields []string
	size, longest := s.size()
	total := 0
	for _, i := range missing {
		w := c.wants[i]
		total += w.count()
		switch {
		case w.count() > longest:
			fields = append(fields, c.field(i, "count"))
		case w.Port != nil && !s.hasAll(*w.Port, w.count()):
			fields = append(fields, c.field(i, "port"))
		case w.Prefer != nil && !s.has(*w.Prefer):
			fields = append(fields, c.field(i, "prefer"))
		case w.Align != nil && len(s.starts(w)) == 0:
			fields = append(fields, c.field(i, "align"))
		}
	}
	if fields == nil && total > size {
		fields = []string{"body"}
	}
	if fields == nil {
		return answer{}
	}
	return answer{Code: CodeInvalid, Fields: fields}
}

// refused refuses names that have ports, and ports that are not free, all of them.
func (p *picker) refused(c request, missing []int, turn bool) answer {
	var names, ports []string
	wait, known := ms(0), true
	for _, i := range missing {
		w := c.wants[i]
		if slices.ContainsFunc(p.m.holds(p.s), func(h *hold) bool { return h.name == w.Name }) {
			names = append(names, c.field(i, "name"))
		}
		if w.Port == nil {
			continue
		}
		left, free := p.exact(c, w, *w.Port)
		if free && turn {
			continue
		}
		ports = append(ports, c.field(i, "port"))
		wait, known = max(wait, left), known && left > 0
	}
	if len(names)+len(ports) > 1 {
		p.m.note("several are at fault")
	}
	if names != nil {
		return c.faults(CodeNameTaken, append(names, ports...))
	}
	if ports == nil {
		return answer{}
	}
	refusal := c.faults(CodePortTaken, ports)
	if known {
		refusal.RetryAfter = wait
	}
	return refusal
}

// noneFree is the answer where a call finds no ports, or must leave them to others: it has to wait, or it fails.
func (m *model) noneFree(p *modelPool, s *modelService, c request, turn bool) answer {
	if c.stay {
		m.join(p, s, c)
		return answer{Waits: true, RetryAfter: m.nextFree(s)}
	}
	if turn {
		return answer{Code: CodeExhausted, RetryAfter: m.nextFree(s)}
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
	return max(0, port.freedAt(s)+s.cooldown-now)
}

// all picks exact ports first, then blocks from the longest to the shortest, then preferred ones, then any.
func (p *picker) all(c request, missing []int) (ports []int, found bool) {
	ports = make([]int, len(c.wants))
	var blocks []int
	for _, i := range missing {
		if w := c.wants[i]; w.Port != nil {
			p.take(*w.Port, w.count())
			ports[i] = *w.Port
		} else if w.surely() > 1 {
			blocks = append(blocks, i)
		}
	}
	slices.SortStableFunc(blocks, func(i, j int) int {
		return cmp.Or(c.wants[j].count()-c.wants[i].count(), c.wants[j].align()-c.wants[i].align())
	})
	for _, i := range blocks {
		w := c.wants[i]
		port := p.hashed(w)
		if w.Prefer != nil {
			port = *w.Prefer
		}
		if port > 0 && p.takePreferred(c, w, port) {
			ports[i] = port
			continue
		}
		if ports[i] = p.block(w.count(), w.align(), p.s.chosen[i]); ports[i] == 0 {
			return nil, false
		}
	}
	for _, i := range missing {
		if w := c.wants[i]; w.surely() > 1 {
			continue
		} else if w.Prefer != nil && p.takePreferred(c, w, *w.Prefer) {
			p.m.note("got what it prefers")
			ports[i] = *w.Prefer
		} else if w.Prefer != nil {
			p.m.note("got another than it prefers")
		} else if port := p.hashed(w); port > 0 && ports[i] == 0 && p.takePreferred(c, w, port) {
			ports[i] = port
		}
	}
	for _, i := range missing {
		if ports[i] == 0 {
			if ports[i] = p.any(); ports[i] == 0 {
				return nil, false
			}
		}
	}
	return ports, true
}

func (p *picker) take(port, count int) {
	for number := port; number < port+count; number++ {
		p.picked[number] = true
	}
}

func (p *picker) isFresh(number int) bool {
	return p.s.has(number) && p.s.ports[number] == nil && !p.picked[number]
}

func (p *picker) isFree(number int) bool {
	port := p.s.ports[number]
	return p.isFresh(number) || port != nil && port.isFree(p.m.now, p.s) && !p.picked[number]
}

// exact reports whether a want may have just these ports. Where not, it tells how long the first that it may not have stays so, if
// that is known.
func (p *picker) exact(c request, w want, port int) (left ms, free bool) {
	for number := port; number < port+w.count(); number++ {
		if !p.isFree(number) && (p.picked[number] || !p.s.mayReturn(p.m, c, w, number)) {
			if of := p.s.ports[number]; of != nil {
				left = of.freeIn(p.m.now, p.s)
			}
			return left, false
		}
	}
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
			return cmp.Or(cmp.Compare(p.s.ports[a].freedAt(p.s), p.s.ports[b].freedAt(p.s)), cmp.Compare(strconv.Itoa(a), strconv.Itoa(b)))
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

// freePorts are those that calls for any port get, one after the other.
func (m *model) freePorts(s *modelService) (ports []int) {
	notes := m.notes
	defer func() { m.notes = notes }()
	p := &picker{m, s, map[int]bool{}}
	for port := p.any(); port > 0; port = p.any() {
		ports = append(ports, port)
	}
	return ports
}

// noteUse notes what a port that was given back had been.
func (p *picker) noteUse(port *modelPort) {
	switch {
	case port.hold != nil && port.hold.fence > 0:
		p.m.note("picked after a lease")
	case port.rests > 0:
		p.m.note("picked after its rest")
	case p.s.cooldown > 0:
		p.m.note("picked after it cooled")
	}
	for _, other := range p.s.ports {
		if !other.hold.lives(p.m.now) && other.rests == 0 && other.score <= p.m.now && !other.isFree(p.m.now, p.s) {
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
func (p *picker) block(count, align, chosen int) int {
	first := p.takeRun(count, align, chosen)
	if back := p.givenBack(); first == 0 && len(back) > 0 {
		p.m.note("gathered")
		maps.DeleteFunc(p.s.ports, func(number int, _ *modelPort) bool { return slices.Contains(back, number) })
		maps.DeleteFunc(p.s.last, func(number int, _ lastHolder) bool { return slices.Contains(back, number) })
		if first = p.takeRun(count, align, chosen); first == 0 {
			p.m.note("gathered in vain")
		}
	} else if first > 0 {
		p.m.note("took a run of fresh ports")
	}
	if first == 0 && align > 1 {
		first = p.takeAligned(count, align)
	}
	return first
}

func (p *picker) takeRun(count, align, chosen int) int {
	fit := slices.DeleteFunc(p.runs(), func(run span) bool { return run.to-run.from+1 < count+align-1 })
	if len(fit) == 0 {
		return 0
	}
	run := slices.MinFunc(fit, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.to-a.from, b.to-b.from), cmp.Compare(strconv.Itoa(a.to), strconv.Itoa(b.to)))
	})
	if i := slices.IndexFunc(fit, func(run span) bool { return multiple(run.from, align) == chosen }); i >= 0 && p.s.lateRoom {
		run = fit[i]
	}
	first := multiple(run.from, align)
	p.take(first, count)
	return first
}
