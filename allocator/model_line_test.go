package allocator

import (
	"slices"
	"strconv"
	"strings"
)

// Who waits in line for a port of a service, and whose turn it is.

// waiter is the place of a call in line.
type waiter struct {
	ticket string
	lost   ms // when it is lost, unless the call is heard of before
}

// ports is how many the call waits for.
func (p *waiter) ports() int {
	_, count, _ := strings.Cut(p.ticket, "/")
	n, _ := strconv.Atoi(count)
	return n
}

const beatFor = 1500 // ms: how long a place is kept

// waiting returns the places in line that are not lost.
func (s *modelService) waiting(now ms) (line []*waiter) {
	for _, place := range s.line {
		if now < place.lost {
			line = append(line, place)
		}
	}
	return line
}

// settleLine ends the places that were lost.
func (m *model) settleLine(s *modelService) {
	kept := s.waiting(m.now)
	if len(kept) < len(s.line) {
		m.note("a place was lost")
	}
	s.line = kept
}

func (s *modelService) inLine(ticket string) int {
	return slices.IndexFunc(s.line, func(p *waiter) bool { return p.ticket == ticket })
}

func (s *modelService) drop(ticket string) {
	s.line = slices.DeleteFunc(s.line, func(p *waiter) bool { return p.ticket == ticket })
}

// join puts a call at the end of the line, or keeps the place that it has.
func (m *model) join(s *modelService, c request) {
	at := s.inLine(c.ticket)
	if at < 0 {
		at = len(s.line)
		s.line = append(s.line, &waiter{ticket: c.ticket})
	}
	s.line[at].lost = m.now + beatFor
}

// free is how many ports are.
func (m *model) free(s *modelService) int { return m.service("", s).Ports.Free }

// called are those in front of the line for whom there are ports; nobody behind one who waits for several.
func (m *model) called(s *modelService) (tickets []string) {
	spare := m.free(s)
	for _, place := range s.line {
		if place.ports() > spare {
			return tickets
		}
		if tickets = append(tickets, place.ticket); place.ports() > 1 {
			return tickets
		}
		spare--
	}
	return tickets
}

// isTurn reports whether nobody stands in line before a call.
func (m *model) isTurn(s *modelService, ticket string) bool {
	m.settleLine(s)
	return len(s.line) == 0 || ticket != "" && s.inLine(ticket) == 0
}

// beat keeps the places of some, and tells whose turn it is and who has lost his place.
func (m *model) beat(s *modelService, c request) (got answer) {
	if s == nil {
		return answer{Tickets: c.beats}
	}
	m.settleLine(s)
	got.Tickets = m.called(s)
	for _, ticket := range c.beats {
		if at := s.inLine(ticket); at >= 0 {
			s.line[at].lost = m.now + beatFor
		} else {
			got.Tickets = append(got.Tickets, ticket)
		}
	}
	return got
}

func (m *model) leave(s *modelService, c request) answer {
	if s != nil {
		s.drop(c.ticket)
	}
	return answer{}
}
