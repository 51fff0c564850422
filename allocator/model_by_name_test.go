package allocator

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// How a service of the model picks by name.

// lastHolder is who had a port last.
type lastHolder struct {
	holder string // name and owner
	since  ms     // when the port began to cool down that it got while it did; 0 if it did not
}

func drawPick(t *rapid.T) Pick {
	return rapid.SampledFrom([]Pick{PickRested, PickByName}).Draw(t, "pick")
}

func holderOf(c request, w want) string { return strings.TrimSpace(w.Name + " " + c.caller.Owner) }

// hashed is the port that a want is led to by its name, 0 if by something else.
func (p *picker) hashed(w want) int {
	if p.s.pick != PickByName || w.Port != nil || w.Prefer != nil {
		return 0
	}
	all := p.s.starts(w)
	sum := sha1.Sum([]byte(w.Name))
	return all[int(binary.BigEndian.Uint32(sum[:]))%len(all)]
}

// takePreferred takes ports if a want may have them.
func (p *picker) takePreferred(c request, w want, port int) bool {
	_, free := p.exact(c, w, port)
	if free {
		p.take(port, w.count())
		if w.Prefer == nil {
			p.m.note("led to a port by its name")
		}
	} else if w.Prefer == nil {
		p.m.note("led to a port that is not free")
	}
	return free
}

// mayReturn reports whether a want may have a port that cools down, since its holder had it last.
func (s *modelService) mayReturn(m *model, c request, w want, number int) bool {
	port := s.ports[number]
	if s.pick != PickByName || port == nil || port.hold.lives(m.now) || port.rests > 0 || port.score > m.now {
		return false
	}
	return s.last[number].holder == holderOf(c, w)
}

// setLast notes who has the ports of a want, before it has them.
func (s *modelService) setLast(m *model, c request, w want, port int) {
	for number := port; s.pick == PickByName && number < port+w.count(); number++ {
		last := lastHolder{holder: holderOf(c, w)}
		if of := s.ports[number]; of != nil && !of.isFree(m.now, s) {
			m.note("returned to a port that cools")
			last.since = of.score
		}
		s.last[number] = last
	}
}

// goOnCooling lets ports of an offer that was rejected cool down on, if they did when they were offered.
func (s *modelService) goOnCooling(p *modelPool, h *hold) {
	for number := h.port; number < h.port+h.count; number++ {
		since := s.last[number].since
		if port := s.ports[number]; port.rests > 0 {
			port.rests = max(port.rests, since+s.cooldown)
			p.rest[number] = port.rests
		} else {
			port.score = max(port.score, since)
		}
	}
}

// describeLast tells who had the ports last.
func (s *modelService) describeLast(at string) (lines []string) {
	for number, last := range s.last {
		lines = append(lines, fmt.Sprintf("%s %d was last of %d %s", at, number, last.since, last.holder))
	}
	return lines
}
