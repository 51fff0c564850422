package allocator

import (
	"time"

	"pgregory.net/rapid"
)

// Which leases a service of the model gives: its default, and the longest; 0 for none.

type modelLeases struct{ byDefault, longest ms }

func (c request) leases() modelLeases {
	return modelLeases{c.byDefault.Milliseconds(), c.longest.Milliseconds()}
}

// text is what the store has of them.
func (l modelLeases) text() string {
	return leaseBounds(time.Duration(l.byDefault)*time.Millisecond, time.Duration(l.longest)*time.Millisecond)
}

// ofNone is the lease of what asks for none.
func (l modelLeases) ofNone() ms {
	if l.byDefault == 0 {
		return l.longest
	}
	return l.byDefault
}

func (l modelLeases) isTooLong(lease time.Duration) bool {
	return l.longest > 0 && lease.Milliseconds() > l.longest
}

// tooLong refuses leases that are too long for the service, but of what is there already: what a call makes new, or of an offer.
func (m *model) tooLong(s *modelService, c request, there map[int]*hold) answer {
	var fields []string
	for i, w := range c.wants {
		isDone := there[i] != nil && (c.act == "offer" || there[i].fence > 0)
		if !isDone && s != nil && s.leases.isTooLong(valueOf(w.Lease)) {
			fields = append(fields, c.field(i, "lease"))
		}
	}
	if fields == nil {
		return answer{}
	}
	m.note("asks for too long a lease")
	return c.faults(CodeInvalid, fields)
}

// leaseOf is the lease of a new hold.
func (m *model) leaseOf(s *modelService, w want) ms {
	if w.Lease == nil && s.leases.ofNone() > 0 {
		m.note("got a lease by default")
		return s.leases.ofNone()
	}
	return valueOf(w.Lease).Milliseconds()
}

// renewal is for how long a lease is renewed, 0 if it has none and gets none.
func (m *model) renewal(s *modelService, asked time.Duration, had ms) ms {
	switch {
	case asked > 0:
		return asked.Milliseconds()
	case had == 0:
		return s.leases.ofNone()
	case s.leases.longest > 0 && had > s.leases.longest:
		m.note("renewed for less than before")
		return s.leases.longest
	}
	return had
}

// drawLeases draws those of a definition, mostly none.
func (c *request) drawLeases(t *rapid.T) {
	leases := rapid.SampledFrom([][2]time.Duration{
		{}, {}, {}, {}, {}, {MinLease, 0}, {0, MinLease}, {MinLease, time.Minute}, {0, MaxLease},
	}).Draw(t, "leases")
	c.byDefault, c.longest = leases[0], leases[1]
}
