//go:build faults

package systemtest

import "time"

// history is what the clients were told, holder by holder.
type history struct {
	clockStep time.Duration
	lives     map[string]*tenure // by secret
	byName    map[owner]*tenure
	findings  findings
}

// owner is a name, which no two holders of a scenario share.
type owner struct {
	service service
	name    string
}

// tenure is what became of one holder.
type tenure struct {
	offered, accepted *call     // the first answers that acknowledged it
	decided           time.Time // when its accept or reject was first sent
	leaving           time.Time // when a release was first sent that may have been done
	rejected          bool
	released          bool
	lost              bool

	// A call was sent of which the outcome is not known.
	maybeOffered, maybeAccepted, maybeReleased bool
}

// newHistory reads calls in the order in which they began, and finds answers that contradict earlier ones to the same
// holder. clockStep is as of rules.
func newHistory(calls []call, clockStep time.Duration) *history {
	h := &history{clockStep: max(0, clockStep), lives: map[string]*tenure{}, byName: map[owner]*tenure{}}
	for _, c := range calls {
		l := h.lives[c.secret]
		if l == nil {
			l = &tenure{}
			h.lives[c.secret] = l
			h.byName[owner{c.service, c.name}] = l
		}
		switch c.kind {
		case offer:
			h.offer(l, c)
		case accept:
			h.accept(l, c)
		case reject:
			h.reject(l, c)
		case release:
			h.release(l, c)
		}
	}
	return h
}

func (h *history) offer(l *tenure, c call) {
	l.maybeOffered = l.maybeOffered || c.unknown()
	if !c.acknowledged() {
		return
	}
	h.compare(l, c)
	if l.offered == nil {
		l.offered = &c
	} else if c.status == 201 && c.end.Before(l.offered.expiresAt) {
		h.find(lostOffer, "%v, and later %v", *l.offered, c)
	}
}

func (h *history) accept(l *tenure, c call) {
	l.decide(c)
	l.maybeAccepted = l.maybeAccepted || c.unknown()
	switch {
	case c.acknowledged():
		h.compare(l, c)
		if l.accepted == nil {
			l.accepted = &c
		} else if c.status == 201 {
			h.lose(l, "%v, and later %v", *l.accepted, c)
		}
	case c.refused() && l.accepted != nil:
		if c.end.Before(l.remembered(h.clockStep)) {
			h.lose(l, "%v, and later %v", *l.accepted, c)
		}
	case c.refused():
		h.checkOffer(l, c)
	}
}

func (h *history) reject(l *tenure, c call) {
	l.decide(c)
	switch {
	case c.acknowledged():
		l.rejected = true
	case c.refused():
		h.checkOffer(l, c)
	}
}

func (h *history) release(l *tenure, c call) {
	if l.leaving.IsZero() && !c.undone() {
		l.leaving = c.start
	}
	switch {
	case c.acknowledged():
		l.released = true
	case c.refused() && l.maybeReleased:
		l.released = true
	case c.refused():
		h.lose(l, "%v, and it was never released before", c)
	case c.unknown():
		l.maybeReleased = true
	}
}

// compare finds an acknowledgement that differs from the first one of the same secret.
func (h *history) compare(l *tenure, c call) {
	for _, first := range []*call{l.offered, l.accepted} {
		if first != nil && (first.port != c.port || first.kind == c.kind && first.fence != c.fence) {
			h.find(changed, "%v, and later %v", *first, c)
			return
		}
	}
	if c.answered != c.name {
		h.find(changed, "%v is answered for %q", c, c.answered)
	}
}

// checkOffer finds an acknowledged offer that is gone before it expired.
func (h *history) checkOffer(l *tenure, c call) {
	if l.offered != nil && c.end.Before(l.remembered(h.clockStep)) {
		h.find(lostOffer, "%v, and later %v", *l.offered, c)
	}
}

func (l *tenure) decide(c call) {
	if l.decided.IsZero() {
		l.decided = c.start
	}
}

// remembered is until when the holder's accept or reject may be repeated: for a minute, or while its offer would have
// lasted; less by a step of the clock.
func (l *tenure) remembered(clockStep time.Duration) time.Time {
	until := l.decided.Add(time.Minute - clockStep)
	if offered := l.offered.expiresAt.Add(-clockStep); offered.Before(until) {
		return offered
	}
	return until
}

// cannotHold says why a listed allocation cannot be this holder's; "" where it can.
func (l *tenure) cannotHold(a listing) string {
	switch {
	case l == nil:
		return "no holder has that name"
	case l.released:
		return "it was released"
	case l.rejected:
		return "its offer was rejected"
	case l.accepted == nil && !l.maybeAccepted:
		return "its offer was never accepted"
	case l.accepted != nil && l.maybeReleased && (l.accepted.port != a.Port || l.accepted.fence != a.Fence):
		return "its holder had another one" // that of a holder who never released is lost, too
	}
	return ""
}

// cannotBeOffered says why a listed offer cannot be this holder's; "" where it can.
func (l *tenure) cannotBeOffered() string {
	switch {
	case l == nil:
		return "no holder has that name"
	case l.accepted != nil:
		return "it was accepted"
	case l.rejected:
		return "it was rejected"
	case l.offered == nil && !l.maybeOffered:
		return "it was never made"
	}
	return ""
}
