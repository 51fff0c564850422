package allocator

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// The calls of a walk. Each returns what became of it, and behind "::" with which arguments.

func (w *drainWalk) put(ranges []Range, drain bool) error {
	d := Definition{Name: "web", Ranges: ranges, Cooldown: w.cooldown, Drain: drain, Pick: w.pick, DefaultLease: w.byDefault}
	_, _, err := w.a.Define(w.t.Context(), Caller{}, DefaultPool, d)
	return err
}

func (w *drainWalk) define() string {
	first := walkMin + w.random.IntN(walkMax-walkMin)
	ranges := []Range{{first, first + w.random.IntN(walkMax-first+1)}}
	if hole := ranges[0].Start + w.random.IntN(20); w.random.IntN(2) == 0 && hole > ranges[0].Start && hole < ranges[0].End {
		ranges = []Range{{ranges[0].Start, hole - 1}, {hole + 1, ranges[0].End}}
	}
	if w.random.IntN(3) == 0 {
		ranges = []Range{{walkMin, walkMax}}
	}
	leaving, held, joining := false, false, false
	for port := walkMin; port <= walkMax; port++ {
		leaves := within(w.ranges, port) && !within(ranges, port)
		leaving, held = leaving || leaves, held || leaves && w.holder(port) != nil
		joining = joining || within(ranges, port) && !within(w.ranges, port)
	}
	drain, outcome := w.random.IntN(3) > 0, "as before"
	err := w.put(ranges, drain)
	switch isRefused := errors.Is(err, ErrRangeInUse); {
	case isRefused != (held && !drain) || !isRefused && err != nil:
		w.fail("defined %v, drain %v: %v; held %v", ranges, drain, err, held)
	case isRefused:
		return fmt.Sprintf("refused:: %v", ranges)
	case held:
		outcome = "narrowed around"
	case leaving:
		outcome = "narrowed"
	case joining:
		outcome = "widened"
	}
	w.ranges = ranges
	return fmt.Sprintf("%s:: %v, drain %v", outcome, ranges, drain)
}

// other defines another service, and removes it again: it gets no port that is held or in the ranges, and any if none drains.
func (w *drainWalk) other() string {
	first := walkMin + w.random.IntN(walkMax-walkMin-3)
	last := first + w.random.IntN(3)
	isTheirs, drains := false, slices.ContainsFunc(w.holds, w.drains)
	for port := first; port <= last; port++ {
		isTheirs = isTheirs || within(w.ranges, port) || w.holder(port) != nil
	}
	_, err := w.a.Create(w.t.Context(), Caller{}, DefaultPool, Definition{Name: "other", Start: first, End: last})
	if errors.Is(err, ErrRangeOverlap) {
		if !isTheirs && !drains {
			w.fail("other %d-%d: %v, and nobody has it", first, last, err)
		}
		return fmt.Sprintf("other: overlap:: %d-%d", first, last)
	}
	if err != nil || isTheirs {
		w.fail("other %d-%d: %v, is had %v", first, last, err, isTheirs)
	}
	if err := w.a.Remove(w.t.Context(), Caller{}, DefaultPool, "other"); err != nil {
		w.fail("other removed: %v", err)
	}
	return fmt.Sprintf("other: gone:: %d-%d", first, last)
}

// take asks for a port or a block, any or a given one, on offer or with or without a lease.
func (w *drainWalk) take() string {
	w.names++
	h := &walkHold{name: fmt.Sprint("n", w.names), count: 1 + max(0, w.random.IntN(6)-3), offered: w.random.IntN(2) == 0}
	r := Request{Name: h.name, Count: optional(h.count)}
	if w.random.IntN(2) == 0 {
		r.Lease = optional(time.Second + time.Duration(w.random.IntN(2000))*time.Millisecond)
	}
	if w.random.IntN(3) == 0 {
		r.Labels = job
	}
	exact, align := w.random.IntN(3) == 0, 1
	if !exact && w.random.IntN(3) == 0 {
		align = 2 + w.random.IntN(3)
		r.Align = optional(align)
	}
	var starts []int
	for port := walkMin; port <= walkMax-h.count+1; port++ {
		free := port%align == 0
		for i := range h.count {
			free = free && w.isFree(port+i) && (i == 0 || within(w.ranges, port+i))
		}
		if free {
			starts = append(starts, port)
		}
	}
	want, given := error(ErrExhausted), 0
	if exact {
		given = walkMin + w.random.IntN(walkMax-walkMin+1)
		r.Port, want = optional(given), ErrPortTaken
		starts = slices.DeleteFunc(starts, func(port int) bool { return port != given })
		if !w.isRow(given, h.count) {
			want = ErrInvalid
		}
	} else if !w.hasRow(h.count, align) {
		want = ErrInvalid
	}
	err := w.grant(h, r)
	what := fmt.Sprintf("%+v, offer %v, port %d, align %d", *h, h.offered, given, align)
	if len(starts) == 0 {
		if !errors.Is(err, want) {
			w.fail("%s: %v, want %v", what, err, want)
		}
		return "not free:: " + what
	}
	if err != nil || !slices.Contains(starts, h.port) {
		w.fail("%s: %v, want one of %v", what, err, starts)
	}
	w.holds = append(w.holds, h)
	return "taken:: " + what
}

func (w *drainWalk) isRow(port, count int) bool {
	return slices.ContainsFunc(w.ranges, func(r Range) bool { return port >= r.Start && port+count-1 <= r.End })
}

func (w *drainWalk) hasRow(count, align int) bool {
	return slices.ContainsFunc(w.ranges, func(r Range) bool { return multiple(r.Start, align)+count-1 <= r.End })
}

func (w *drainWalk) grant(h *walkHold, r Request) error {
	if h.offered {
		o, _, err := offerOne(w.t.Context(), w.a, DefaultPool, "web", r, 0)
		h.port, h.secret, h.expires = o.Port, o.Secret, o.Expires
		return err
	}
	a, _, err := claimOne(w.t.Context(), w.a, DefaultPool, "web", r, 0)
	h.port, h.secret, h.expires = a.Port, a.Secret, a.Expires
	return err
}

// one draws a hold, and takes it out of the list.
func (w *drainWalk) one(offered bool) *walkHold {
	var some []*walkHold
	for _, h := range w.holds {
		if h.offered == offered {
			some = append(some, h)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[w.random.IntN(len(some))]
}

func (w *drainWalk) drop(h *walkHold) {
	w.holds = slices.DeleteFunc(w.holds, func(each *walkHold) bool { return each == h })
}

func (w *drainWalk) accept() string {
	h := w.one(true)
	if h == nil {
		return "nothing"
	}
	a, _, err := w.a.Accept(w.t.Context(), Caller{}, DefaultPool, "web", h.secret, nil)
	if err != nil || a.Port != h.port {
		w.fail("accepted %+v: %+v, %v", *h, a, err)
	}
	h.offered, h.expires = false, a.Expires
	return "accepted:: " + h.name
}

// reject gives back what nobody has used: it does not cool down, unless it drains.
func (w *drainWalk) reject() string {
	h := w.one(true)
	if h == nil {
		return "nothing"
	}
	inUse, outcome := w.random.IntN(2) == 0, "rejected"
	if _, err := w.a.Reject(w.t.Context(), Caller{}, DefaultPool, "web", h.secret, inUse); err != nil {
		w.fail("rejected %+v: %v", *h, err)
	}
	for port := h.port; port < h.port+h.count; port++ {
		switch {
		case inUse:
			w.rests[port] = w.now.Add(walkRest)
		case !within(w.ranges, port):
			w.rests[port] = w.now.Add(w.cooldown)
		default:
			w.rests[port] = w.now
		}
	}
	if inUse {
		outcome += " in use"
	}
	return w.ended(outcome, h)
}

func (w *drainWalk) release() string {
	h := w.one(false)
	if h == nil {
		return "nothing"
	}
	outcome, rest := "released", w.cooldown
	var err error
	if w.random.IntN(2) == 0 {
		outcome, rest = "released in use", max(w.cooldown, walkRest)
		_, err = w.a.ReleaseInUse(w.t.Context(), Caller{}, DefaultPool, "web", h.name, Proof{})
	} else {
		err = w.a.Release(w.t.Context(), Caller{}, DefaultPool, "web", h.name, Proof{})
	}
	if err != nil {
		w.fail("%s %+v: %v", outcome, *h, err)
	}
	w.giveBack(h, w.now.Add(rest))
	return w.ended(outcome, h)
}

func (w *drainWalk) ended(outcome string, h *walkHold) string {
	w.drop(h)
	if w.drains(h) {
		outcome += ", drains"
	}
	return outcome + ":: " + h.name
}

func (w *drainWalk) renew() string {
	h := w.one(false)
	if h == nil || h.expires.IsZero() {
		return "nothing"
	}
	a, err := w.a.Renew(w.t.Context(), Caller{}, DefaultPool, "web", h.name, h.secret, optional(time.Second))
	if err != nil {
		w.fail("renewed %+v: %v", *h, err)
	}
	h.expires = a.Expires
	if w.drains(h) {
		return "renewed, drains:: " + h.name
	}
	return "renewed:: " + h.name
}
