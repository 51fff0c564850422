package allocator

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Who waits for a port of a service, and whose turn it is.

// waiter is the position of a call.
type waiter struct {
	ticket string
	since  ms // as its call joined, or a little later
	call   WaitingCall
}

// row is how many ports in a row, of which the first is a multiple of align.
type row struct{ count, align int }

// surely is how many ports must be in a row so that the row is among them, wherever they begin.
func (r row) surely() int { return r.count + r.align - 1 }

// demand is how many ports the call waits for, and how many of them in a row.
func (w *waiter) demand() (ports int, rows []row) {
	parts := strings.Split(w.ticket, "/")
	ports, _ = strconv.Atoi(parts[len(parts)-2])
	for part := range strings.SplitSeq(parts[len(parts)-1], ".") {
		count, align, _ := strings.Cut(part, "x")
		r := row{align: 1}
		r.count, _ = strconv.Atoi(count)
		if align != "" {
			r.align, _ = strconv.Atoi(align)
		}
		rows = append(rows, r)
	}
	return ports, rows
}

// longest is the longest row that has the rows of a ticket for sure, one at a time.
func longest(rows []row) (most int) {
	for _, r := range rows {
		most = max(most, r.surely())
	}
	return most
}

// server is whose call it is.
func serverOf(ticket string) string {
	server, _, _ := strings.Cut(ticket, "-")
	return server
}

const beatFor = 1500 // ms: how long a place is kept

func (m *model) isKept(p *modelPool, w *waiter) bool { return m.now < p.beats[serverOf(w.ticket)] }

// waiting returns the positions that are not lost.
func (m *model) waiting(p *modelPool, s *modelService) []*waiter {
	return slices.DeleteFunc(slices.Clone(s.line), func(w *waiter) bool { return !m.isKept(p, w) })
}

func (s *modelService) inLine(ticket string) int {
	return slices.IndexFunc(s.line, func(w *waiter) bool { return w.ticket == ticket })
}

func (s *modelService) drop(ticket string) {
	s.line = slices.DeleteFunc(s.line, func(w *waiter) bool { return w.ticket == ticket })
}

// join puts a call at the end of the waitlist, unless it has a place. Those that were lost are gone, before its server may be heard of
// again.
func (m *model) join(p *modelPool, s *modelService, c request) {
	if kept := m.waiting(p, s); len(kept) < len(s.line) {
		m.note("a place was lost")
		s.line = kept
	}
	if s.inLine(c.ticket) < 0 {
		since := m.now
		if n := len(s.line); n > 0 {
			since = max(since, s.line[n-1].since+1)
		}
		call := WaitingCall{Service: c.service, Name: c.wants[0].Name, Requests: len(c.wants)}
		for _, w := range c.wants {
			call.Ports += w.count()
		}
		s.line = append(s.line, &waiter{c.ticket, since, call})
		p.beats[serverOf(c.ticket)] = m.now + beatFor
	}
}

// free is how many ports are.
func (m *model) free(p *modelPool, s *modelService) int { return m.service(p, "", s).Ports.Free }

// called are those in front of the waitlist for whom there are ports, and those who wait for more than there ever are. Those who wait
// for rows that there are not need not be told, and those need not who want as long a row and stand behind.
func (m *model) called(p *modelPool, s *modelService) (tickets []string, needNot map[string]bool) {
	spare, missing := m.free(p, s), math.MaxInt
	needNot = map[string]bool{}
	size, inARow := s.size()
	for _, w := range m.waiting(p, s) {
		ports, rows := w.demand()
		switch {
		case ports > size || rows[0].count > inARow:
			tickets = append(tickets, w.ticket)
		case ports > spare:
			return tickets, needNot
		default:
			is := longest(rows) == 1 || len(rows) == 1 && m.hasRows(s, rows)
			if !is {
				missing = min(missing, longest(rows))
			}
			needNot[w.ticket] = !is || longest(rows) >= missing && !isAligned(rows)
			tickets = append(tickets, w.ticket)
			spare -= ports
		}
	}
	return tickets, needNot
}

// untold takes those out of an answer whom the store has not told, and need not.
func (got answer) untold(by answer) answer {
	got.Tickets = slices.DeleteFunc(slices.Clone(got.Tickets), func(ticket string) bool {
		return got.needNot[ticket] && !slices.Contains(by.Tickets, ticket)
	})
	if len(got.Tickets) == 0 {
		got.Tickets = nil
	}
	got.needNot = nil
	return got
}

// mayTake reports whether a call that wants so many ports, so many of them in a row, may have some now: nobody stands before it,
// or those who do wait for longer rows, of which there are none, and there are enough ports for all of them.
func (m *model) mayTake(p *modelPool, s *modelService, ticket string, ports, inARow int) bool {
	before, rows := 0, [][]row{}
	for _, w := range m.waiting(p, s) {
		if w.ticket == ticket {
			break
		}
		theirs, theirRows := w.demand()
		if longest(theirRows) <= inARow {
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
	found := slices.ContainsFunc(rows, func(theirs []row) bool { return m.hasRows(s, theirs) })
	m.gather(s)
	if found {
		m.note("lets one before it that waits for a row")
		return false
	}
	m.note("passes one that waits for a row")
	return true
}

// hasRows reports whether a service has such rows of free ports.
func (m *model) hasRows(s *modelService, rows []row) bool {
	copied := *s
	copied.ports = maps.Clone(s.ports)
	copied.last = maps.Clone(s.last)
	notes := m.notes
	defer func() { m.notes = notes }()
	p := &picker{m, &copied, map[int]bool{}}
	for _, r := range rows {
		if r.surely() > 1 && p.block(r.count, r.align, 0) == 0 {
			return false
		}
	}
	return true
}

// gather makes ports that were given back fresh, if the store has: it does not look for rows again that it knows there are not.
func (m *model) gather(s *modelService) {
	back := (&picker{m, s, map[int]bool{}}).givenBack()
	if slices.ContainsFunc(back, func(number int) bool { return s.nowFresh[number] }) {
		maps.DeleteFunc(s.ports, func(number int, _ *modelPort) bool { return slices.Contains(back, number) })
		maps.DeleteFunc(s.last, func(number int, _ lastHolder) bool { return slices.Contains(back, number) })
	}
}

// waitingCalls lists those that are in line.
func (m *model) waitingCalls(p *modelPool, s *modelService) (calls []WaitingCall) {
	for _, w := range m.waiting(p, s) {
		call := w.call
		call.Since = time.UnixMilli(min(w.since, m.now)).UTC()
		calls = append(calls, call)
	}
	return calls
}

// heartbeat keeps the places of a server's calls.
func (m *model) beat(p *modelPool, c request) answer {
	known := m.now < p.beats[c.server]
	p.beats[c.server] = m.now + beatFor
	return answer{Known: known}
}

// look tells whose turn it is, and which of some tickets are not on the waitlist.
func (m *model) look(p *modelPool, s *modelService, c request) (got answer) {
	if s == nil {
		return answer{RetryAfter: -1}
	}
	tickets, needNot := m.called(p, s)
	size, _ := s.size()
	got = answer{Tickets: tickets, needNot: needNot, Size: size, RetryAfter: m.nextFree(s)}
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
