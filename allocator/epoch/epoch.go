// Package epoch knows which state of Redis a server works on. It notices when that state is gone, is replaced by another one, is
// older than what was acknowledged, or has another schema, and when Redis' clock steps back. Ports that are handed out from such a
// state may have holders that nobody knows of.
package epoch

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
)

// Options are the settings of an Epoch.
type Options struct {
	Replicas    int           // how many replicas must have a change before it is answered
	MaxRollback time.Duration // how much older than what was acknowledged a state may be to be built upon; with Replicas 0
	Quarantine  time.Duration // how long a port that was rejected as in use is kept out
}

// Epoch is what one server knows of the state in Redis. Its errors are of type *Error or *executor.Error, or of a malformed record.
// It is safe for concurrent use.
type Epoch struct {
	Options  Options // must not change while calls are under way
	executor *executor.Executor
	keys     keyspace.Prefix
	fences   fences
	mending  mending

	begun      atomic.Int64 // how often this server has looked
	noticed    atomic.Int64 // how often the state turned out to be behind
	converting atomic.Bool  // the state of older servers is being converted
	confirming sync.Mutex   // held by the one goroutine that waits for the replicas
	recalling  sync.Mutex   // held by the one goroutine that looks; guards reported and failed
	reported   bool         // Redis knows how many allocations are missing from a state that is behind
	failed     error        // how the last look ended

	mu      sync.Mutex // guards what follows
	id      string     // of the state last seen; empty: none was seen yet
	pulse   string     // the last one seen in that state
	acks    []ack
	missing bool   // changes are missing, and Redis may not know yet that the state is lost
	refusal *Error // why no port is handed out
	closed  *Error // why nothing is read or changed
	figures Figures
	time    time.Time // of Redis, as last seen
	seenAt  time.Time // when that was, by this machine's monotonic clock
}

// New returns an Epoch that has seen no state yet.
func New(executor *executor.Executor, keys keyspace.Prefix, opts Options) *Epoch {
	return &Epoch{Options: opts, executor: executor, keys: keys, fences: fences{of: map[string]*poolFence{}}}
}

// Error says why the state cannot be worked on now. Nothing was done.
type Error struct{ Detail string }

func (e *Error) Error() string { return e.Detail }

// ErrLost is the error of every call that hands out ports while the state is lost.
var ErrLost = &Error{"the state that was in Redis is gone, or an older one stands in its place: " +
	"no port is handed out until an operator runs portmaster recover"}

// ack is how many allocations this server had acknowledged when it saw a pulse.
type ack struct {
	pulse       int64 // Unix ms
	allocations int64
}

// Figures are what a server has noticed of the state since it started.
type Figures struct {
	Rollbacks  int           // how often the state was older than what was acknowledged, and was built upon
	Behind     time.Duration // how much older it was the last time
	ClockSteps int           // how often Redis' clock stepped by more than a second
	ClockStep  time.Duration // how far it stepped the last time; negative: back
}

// Figures returns what was noticed so far.
func (e *Epoch) Figures() Figures {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.figures
}

// Open returns why nothing may be read or changed; nil if all is well. Before the first call it looks which state Redis holds.
func (e *Epoch) Open(ctx context.Context) error {
	for {
		e.mu.Lock()
		isKnown, closed := e.id != "", e.closed
		e.mu.Unlock()
		switch {
		case closed != nil:
			return closed
		case isKnown:
			return nil
		}
		if err := e.Recall(ctx); err != nil {
			return err
		}
	}
}

// HandsOut returns why no port may be handed out; nil if all is well. It does what Open does.
func (e *Epoch) HandsOut(ctx context.Context) error {
	if err := e.Open(ctx); err != nil {
		return err
	}
	return e.Fault()
}

// Fault returns what was wrong with the state when this server last looked: ErrLost, the error of another schema, or nil.
func (e *Epoch) Fault() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refusal != nil {
		return e.refusal
	}
	return nil
}

// Missing must be called when changes are missing that the replicas had. From then on no port is handed out, and Redis is told
// until it knows.
func (e *Epoch) Missing() {
	e.mu.Lock()
	e.missing = true
	e.refusal = ErrLost
	e.mu.Unlock()
	go func() {
		for e.recallBehind(context.Background(), time.Millisecond, e.noticed.Load()) != nil {
			time.Sleep(time.Second)
		}
	}()
}

// learn remembers what was seen; the pulse only if it is confirmed.
func (e *Epoch) learn(found seen, confirmed bool) {
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
		e.refusal = ErrLost
		if e.id == "" {
			e.id, e.pulse = found.id, "" // a server that starts on a lost state has seen nothing of it
		}
		return
	}
	if found.behind > 0 {
		e.figures.Rollbacks++
		e.figures.Behind = found.behind
	}
	if found.id != e.id {
		e.acks, e.pulse = nil, ""
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

// watchClock compares the time that passed in Redis with the time that passed here.
func (e *Epoch) watchClock(found seen) {
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

// acknowledgedAfter returns how many allocations were acknowledged since a pulse.
func (e *Epoch) acknowledgedAfter(pulse string) int64 {
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

func (e *Epoch) known() (id, pulse string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.id, e.pulse
}
