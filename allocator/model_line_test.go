package allocator

import (
	"slices"
	"strconv"
	"strings"
)

// Who waits in line for a port of a service, and whose turn it is.

// waiter is the place of a call in line.
type waiter struct{ ticket string }

// demand is how many ports the call waits for, and how many of them in a row, the most first.
func (w *waiter) demand() (ports int, rows []int) {
	parts := strings.Split(w.ticket, "/")
	ports, _ = strconv.Atoi(parts[1])
	for part := range strings.SplitSeq(parts[2], ".") {
		row, _ := strconv.Atoi(part)
		rows = append(rows, row)
	}
	return ports, rows
}

// server is whose call it is.
func serverOf(ticket string) string {
	server, _, _ := strings.Cut(ticket, "-")
	return server
}

const beatFor = 1500 // ms: how long a place is kept

func (m *model) isKept(p *modelPool, w *waiter) bool { return m.now < p.beats[serverOf(w.ticket)] }

// waiting returns the places in line that are not lost.
func (m *model) waiting(p *modelPool, s *modelService) []*waiter {
	return slices.DeleteFunc(slices.Clone(s.line), func(w *waiter) bool { return !m.isKept(p, w) })
}

func (s *modelService) inLine(ticket string) int {
	return slices.IndexFunc(s.line, func(w *waiter) bool { return w.ticket == ticket })
}

func (s *modelService) drop(ticket string) {
	s.line = slices.DeleteFunc(s.line, func(w *waiter) bool { return w.ticket == ticket })
}

// join puts a call at the end of the line, unless it has a place. Those that were lost are gone, before its server may be heard of
// again.
func (m *model) join(p *modelPool, s *modelService, c request) {
	if kept := m.waiting(p, s); len(kept) < len(s.line) {
		m.note("a place was lost")
		s.line = kept
	}
	if s.inLine(c.ticket) < 0 {
		s.line = append(s.line, &waiter{c.ticket})
		p.beats[serverOf(c.ticket)] = m.now + beatFor
	}
}

// free is how many ports are.
func (m *model) free(p *modelPool, s *modelService) int { return m.service(p, "", s).Ports.Free }

// called are those in front of the line for whom there are ports, and those who wait for more than there ever are.
func (m *model) called(p *modelPool, s *modelService) (tickets []string) {
	spare := m.free(p, s)
	for _, w := range m.waiting(p, s) {
		switch ports, _ := w.demand(); {
		case ports > s.end-s.start+1:
			tickets = append(tickets, w.ticket)
		case ports > spare:
			return tickets
		default:
			tickets = append(tickets, w.ticket)
			spare -= ports
		}
	}
	return tickets
}

// mayTake reports whether a call that wants so many ports, so many of them in a row, may have some now: nobody stands before it,
// or those who do wait for longer rows, of which there are none, and there are enough ports for all of them.
func (m *model) mayTake(p *modelPool, s *modelService, ticket string, ports, row int) bool {
	before, rows := 0, [][]int{}
	for _, w := range m.waiting(p, s) {
		if w.ticket == ticket {
			break
		}
		theirs, theirRows := w.demand()
		if theirRows[0] <= row {
			return false
		}
		before += theirs
		rows = append(rows, theirRows)
	}
	if before == 0 {
		return true
	}
	if m.free(p, s)-before < ports {
		return false
	}
	for _, theirs := range rows {
		if m.hasRows(s, theirs) {
			m.note("lets one before it that waits for a row")
			return false
		}
	}
	m.note("passes one that waits for a row")
	return true
}

// hasRows reports whether a service has such rows of free ports.
func (m *model) hasRows(s *modelService, rows []int) bool {
	p := &picker{m, s, map[int]bool{}}
	for _, row := range rows {
		if row > 1 && p.block(row, 0) == 0 {
			return false
		}
	}
	return true
}

// beat keeps the places of a server's calls.
func (m *model) beat(p *modelPool, c request) answer {
	known := m.now < p.beats[c.server]
	p.beats[c.server] = m.now + beatFor
	return answer{Known: known}
}

// look tells whose turn it is, and which of some tickets are not in line.
func (m *model) look(p *modelPool, s *modelService, c request) (got answer) {
	if s == nil {
		return answer{RetryAfter: -1}
	}
	got = answer{Tickets: m.called(p, s), Size: s.end - s.start + 1, RetryAfter: m.nextFree(s)}
	if got.RetryAfter == 0 {
		got.RetryAfter = -1
	}
	for _, ticket := range c.tickets {
		if at := s.inLine(ticket); at < 0 || !m.isKept(p, s.line[at]) {
			got.Tickets = append(got.Tickets, ticket)
		}
	}
	return got
}

func (m *model) leave(p *modelPool, s *modelService, c request) answer {
	if s != nil {
		s.drop(c.ticket)
	}
	return answer{}
}
