package allocator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"portmaster/lua"
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
	falling    sync.Mutex   // one deals with a fence that is behind at a time
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

// recall looks whether the state is still the one that this Allocator knew, and no older one. If it is lost, no port is handed out
// until it is recovered. fenceBehind is by how much a fence was found behind.
func (a *Allocator) recall(ctx context.Context, fenceBehind time.Duration) error {
	if a.epoch.converting.Load() {
		return unavailable("the state is converted from that of an older server", nil)
	}
	before := a.epoch.begun.Load()
	a.epoch.recalling.Lock()
	defer a.epoch.recalling.Unlock()
	if a.epoch.begun.Load() != before && fenceBehind == 0 {
		return a.epoch.failed // another one has looked since this was called
	}
	a.epoch.begun.Add(1)
	a.epoch.failed = a.recallNow(ctx, fenceBehind)
	return a.epoch.failed
}

func (a *Allocator) recallNow(ctx context.Context, fenceBehind time.Duration) error {
	found, err := a.look(ctx, "", fenceBehind, 0)
	if err == nil && found.state == "none" {
		found, err = a.begin(ctx)
	}
	if failed, ok := errors.AsType[*Error](err); ok && failed.Code == CodeOutcomeUnknown { // of a conversion, which goes on the next time
		return unavailable("Redis did not answer", failed.cause)
	} else if err != nil {
		return err
	}
	if found.behind > 0 && found.state == "lost" && !a.epoch.reported {
		unknown := a.epoch.acknowledgedAfter(found.pulse)
		if _, err := a.look(ctx, "", 0, unknown); err != nil {
			return err
		}
		a.epoch.reported = true
	}
	if found.behind > 0 {
		a.epoch.noticed.Add(1)
	}
	if found.behind > 0 && found.state == "kept" {
		// The fences of all pools come first, so that no two holders ever have the same.
		if err := a.raiseAll(ctx, a.epoch.fences.highest()); err != nil {
			return err
		}
	}
	if known := a.epoch.known(); known != "" && known != found.id && found.state == "kept" {
		// It was recovered. This server may not have been heard before, and some of its pools may be gone.
		if err := a.raise(ctx, a.epoch.fences.pools(), 0); err != nil {
			return err
		}
	}
	a.epoch.reported = a.epoch.reported && found.state == "lost"
	if found.id != a.epoch.known() || found.state == "lost" && a.epoch.why() == nil {
		a.executor.ForgetTrail()
	}
	a.epoch.learn(found, a.opts.Copies == 0)
	if found.state == "kept" && found.ahead > time.Second {
		a.clockSteppedBack(found.ahead)
	}
	if a.opts.Copies > 0 && !a.executor.Clustered() {
		go a.confirm()
	}
	return nil
}

// confirm learns a pulse that the replicas have: one that they have not may get lost, and nothing be amiss.
func (a *Allocator) confirm() {
	if !a.epoch.confirming.TryLock() {
		return
	}
	defer a.epoch.confirming.Unlock()
	if found, err := a.lookConfirmed(context.Background(), true, "", 0, 0); err == nil {
		a.epoch.learn(found, true)
	}
}

// missesChanges is told that changes are missing that replicas had. Nothing is handed out from then on, and Redis is told until it
// knows.
func (a *Allocator) missesChanges() {
	a.epoch.mu.Lock()
	a.epoch.missing = true
	a.epoch.refusal = unavailable(stateLost, nil)
	a.epoch.mu.Unlock()
	go func() {
		for a.recall(context.Background(), time.Millisecond) != nil {
			time.Sleep(time.Second)
		}
	}()
}

// epochSeen is the answer of recall.lua.
type epochSeen struct {
	state, id, schema, pulse string
	behind, ahead            time.Duration
	now                      time.Time
	fence                    int64
}

// look asks Redis which state it holds. begin is the state of an epoch that is to begin if there is none; empty: none is to.
func (a *Allocator) look(ctx context.Context, begin string, fenceBehind time.Duration, unknown int64) (epochSeen, error) {
	return a.lookConfirmed(ctx, false, begin, fenceBehind, unknown)
}

// lookConfirmed is look that may wait for replicas.
func (a *Allocator) lookConfirmed(ctx context.Context, confirmed bool, begin string, fenceBehind time.Duration, unknown int64) (epochSeen, error) {
	a.epoch.mu.Lock()
	id, pulse := a.epoch.id, a.epoch.pulse
	a.epoch.mu.Unlock()
	most := a.opts.MaxRollback
	if a.opts.Copies > 0 {
		most = 0
	}
	behind := fenceBehind.Milliseconds()
	if fenceBehind > 0 {
		behind = max(behind, 1)
	}
	keysOf, args := []string{a.epochKey()}, []any{schema, id, uuid.NewString(), begin,
		cmp.Or(pulse, "0"), a.epoch.fences.highest(), behind, most.Milliseconds(), unknown}
	var answer any
	var err error
	if confirmed {
		answer, err = a.executor.Confirm(ctx, a.keys(DefaultPool).call(lua.Recall, keysOf, args...))
	} else {
		answer, err = a.executor.Read(ctx, keys(a.epochKey()).call(lua.Recall, keysOf, args...))
	}
	if err != nil {
		return epochSeen{}, fromExecutor(err)
	}
	parts, _ := answer.([]any)
	if len(parts) != 8 {
		return epochSeen{}, malformed("the", "epoch")
	}
	var texts [8]string
	for i, part := range parts {
		texts[i], _ = part.(string)
	}
	fence, _ := strconv.ParseInt(texts[7], 10, 64)
	return epochSeen{texts[0], texts[1], texts[2], texts[3], msOf(texts[4]), msOf(texts[5]), time.UnixMilli(msOf(texts[6]).Milliseconds()), fence}, nil
}

func msOf(text string) time.Duration {
	n, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(n) * time.Millisecond
}

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
		if err := a.recall(ctx, 0); err != nil {
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

// notGone is the error of a call about something that is not there, or another's. If that is so since the state is lost, it is
// not told, lest a holder concludes that its port is gone; and since this server may not have noticed yet, it looks.
func (a *Allocator) notGone(ctx context.Context, pool string, err error) error {
	failed, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	switch failed.Code {
	case CodeServiceNotFound, CodePortNotFound, CodeOfferNotFound, CodeSecretMismatch, CodePreconditionFailed:
		if err := a.recall(ctx, 0); err != nil {
			return err
		}
		if err := a.checkFences(ctx, []string{pool}); err != nil {
			return err
		}
		return cmp.Or(a.epoch.why(), err)
	}
	return err
}

// Recovery is what Recover found.
type Recovery struct {
	Needed  bool          // the state was lost; if it was not, nothing is changed
	Known   bool          // it is an older one of the same epoch, not another one
	Behind  time.Duration // by how much it is older, as the servers have noticed
	Unknown int64         // how many allocations they acknowledged since that are not in it
	Held    []Figures     // of all services
}

// Recover declares the state that is in Redis now to be the one that counts, which ends the refusal to hand out ports. First it
// raises the fences of all pools above those that servers reported.
func (a *Allocator) Recover(ctx context.Context) (found Recovery, err error) {
	if err := a.open(ctx); err != nil {
		return found, err
	}
	fields, err := a.executor.Fields(ctx, a.epochKey(), "id", "state", "behind", "unknown", "fence")
	if err != nil {
		return found, fromExecutor(err)
	}
	var says [5]string
	for i, field := range fields {
		says[i], _ = field.(string)
	}
	if found.Needed = says[1] == "lost"; !found.Needed {
		return found, nil
	}
	found.Behind = msOf(says[2])
	found.Known = found.Behind > 0
	found.Unknown, _ = strconv.ParseInt(says[3], 10, 64)
	pools, err := a.listedPools(ctx)
	if err != nil {
		return found, err
	}
	var unread int
	if found.Held, unread = a.readFigures(ctx, pools); unread > 0 {
		return found, unavailable(fmt.Sprintf("the services of %d pools could not be read", unread), nil)
	}
	highest, _ := strconv.ParseInt(says[4], 10, 64)
	if now, err := a.executor.Time(ctx); err == nil {
		highest = max(highest, now.UnixMicro())
	}
	if err := a.raiseAll(ctx, highest); err != nil {
		return found, err
	}
	answer, err := a.executor.WriteUnconfirmed(ctx, keys(a.epochKey()).call(lua.Recover, []string{a.epochKey()}, says[0], uuid.NewString()))
	if err == nil && answer != int64(1) {
		err = unavailable("the state was changed meanwhile", nil)
	}
	return found, fromExecutor(err)
}
