package allocator

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// epoch is what this Allocator knows of the state in Redis: which one it is, and what only grows in it. So it notices that the
// state is gone, is another one, or is older than what was acknowledged. Ports that are handed out from such a state may have
// holders that nobody knows of any more.
type epoch struct {
	fences fences

	begun      atomic.Int64 // how often one has looked
	noticed    atomic.Int64 // how often the state turned out to be behind
	converting atomic.Bool  // the state of older servers is converted
	confirming sync.Mutex   // one waits for the replicas at a time
	recalling  sync.Mutex   // one looks at a time; guards what follows
	reported   bool         // it is told how many allocations are not in a state that is behind
	failed     error        // how the last look ended

	mu      sync.Mutex // guards what follows
	id      string     // of the state last seen; empty: none was seen yet
	pulse   string     // the last that was seen in it
	acks    []ack
	missing bool   // changes are, and Redis may not know yet that the state is lost
	refusal *Error // why no port is handed out
	closed  *Error // why nothing is read or changed
	figures StateFigures
	time    time.Time // of Redis, as last seen
	seenAt  time.Time // by this machine's monotonic clock
}

// ack is how many allocations this Allocator had acknowledged when it saw a pulse.
type ack struct {
	pulse       int64 // Unix ms
	allocations int64
}

// StateFigures tell what an Allocator has noticed of the state in Redis since it began.
type StateFigures struct {
	Rollbacks  int           // how often it was older than what was acknowledged, and the service went on
	Behind     time.Duration // by how much it was the last time
	ClockSteps int           // how often Redis' clock stepped, by more than a second
	ClockStep  time.Duration // by how much it did the last time; negative: back
}

// StateFigures returns what was noticed so far.
func (a *Allocator) StateFigures() StateFigures {
	a.epoch.mu.Lock()
	defer a.epoch.mu.Unlock()
	return a.epoch.figures
}

const stateLost = "the state that was in Redis is gone, or an older one stands in its place: no port is handed out until an operator runs portmaster recover"

// learn remembers what was seen; the pulse, if it is confirmed.
func (e *epoch) learn(found epochSeen, confirmed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if found.state == "none" {
		return // the next look begins an epoch
	}
	e.fences.raise("", max(found.fence, found.now.UnixMicro()))
	if e.missing = e.missing && found.state == "kept" && found.id == e.id; e.missing {
		return
	}
	e.closed, e.refusal = nil, nil
	if found.state == "other" {
		e.closed = otherSchema(found.schema)
		e.refusal = e.closed
		return
	}
	if found.state == "lost" {
		e.refusal = unavailable(stateLost, nil)
		if e.id == "" {
			e.id, e.pulse = found.id, "" // who starts on it has seen nothing of it
		}
		return
	}
	if found.behind > 0 {
		e.figures.Rollbacks++
		e.figures.Behind = found.behind
	}
	if found.id != e.id {
		e.acks = nil
	}
	if found.id != e.id {
		e.pulse = ""
	}
	e.id = found.id
	if confirmed {
		e.pulse = found.pulse
	}
	if n, err := strconv.ParseInt(found.pulse, 10, 64); err == nil && (len(e.acks) == 0 || e.acks[len(e.acks)-1].pulse != n) {
		e.acks = append(e.acks[max(0, len(e.acks)-63):], ack{n, e.fences.allocations()})
	}
	e.watchClock(found)
}

// watchClock compares how much time went by in Redis with how much did here.
func (e *epoch) watchClock(found epochSeen) {
	here := time.Now()
	if !e.seenAt.IsZero() {
		step := found.now.Sub(e.time) - here.Sub(e.seenAt)
		if step > time.Second || found.ahead > 0 {
			if found.ahead > 0 {
				step = min(step, -found.ahead)
			}
			e.figures.ClockSteps++
			e.figures.ClockStep = step
		}
	}
	e.time, e.seenAt = found.now, here
}

// acknowledgedAfter is how many allocations were acknowledged since a pulse.
func (e *epoch) acknowledgedAfter(pulse string) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, _ := strconv.ParseInt(pulse, 10, 64)
	for i := len(e.acks) - 1; i >= 0; i-- {
		if e.acks[i].pulse <= n {
			return e.fences.allocations() - e.acks[i].allocations
		}
	}
	return e.fences.allocations()
}

func (e *epoch) known() (id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.id
}

// finding is what Check says of the epoch.
func (e *epoch) finding() (found Finding, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed != nil:
		return Finding{OtherSchema, e.closed.Detail}, true
	case e.refusal != nil:
		return Finding{StateLost, stateLost}, true
	}
	return Finding{}, false
}

// why returns why no port is handed out; nil if all is well.
func (e *epoch) why() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refusal != nil {
		return e.refusal
	}
	return nil
}

// open returns why no call may go to Redis. Before the first one it looks which state is there.
func (a *Allocator) open(ctx context.Context) error {
	a.epoch.mu.Lock()
	isKnown, closed := a.epoch.id != "", a.epoch.closed
	a.epoch.mu.Unlock()
	if !isKnown && closed == nil {
		if err := a.recall(ctx); err != nil {
			return err
		}
		return a.open(ctx)
	}
	if closed != nil {
		return closed
	}
	return nil
}

// handsOut returns why no port is handed out; nil if all is well.
func (a *Allocator) handsOut(ctx context.Context) error {
	if err := a.open(ctx); err != nil {
		return err
	}
	return a.epoch.why()
}
