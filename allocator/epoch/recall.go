package epoch

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// How a server finds out which state Redis holds; epoch.go has what it concludes from that.

// Recall looks whether the state is still the one that this server knew, and not an older one. If the state is lost, no port is
// handed out until it is recovered; Recall returns nil then, and Fault says so.
func (e *Epoch) Recall(ctx context.Context) error {
	before := e.begun.Load()
	e.recalling.Lock()
	defer e.recalling.Unlock()
	if e.begun.Load() != before {
		return e.failed // another goroutine has looked since this was called
	}
	return e.recall(ctx, 0)
}

// recallBehind is Recall after a fence was found behind by so much. It does nothing if the state was noticed to be behind meanwhile:
// noticed is how often it was before.
func (e *Epoch) recallBehind(ctx context.Context, behind time.Duration, noticed int64) error {
	e.recalling.Lock()
	defer e.recalling.Unlock()
	if e.noticed.Load() != noticed {
		return nil
	}
	return e.recall(ctx, behind)
}

// recall looks, and remembers how that ended. The caller holds e.recalling.
func (e *Epoch) recall(ctx context.Context, fenceBehind time.Duration) error {
	if e.converting.Load() {
		return &Error{"the state is converted from that of an older server"}
	}
	e.begun.Add(1)
	e.failed = e.lookAndLearn(ctx, fenceBehind)
	return e.failed
}

func (e *Epoch) lookAndLearn(ctx context.Context, fenceBehind time.Duration) error {
	found, err := e.look(ctx, "", fenceBehind, 0)
	if err == nil && found.state == "none" {
		found, err = e.begin(ctx)
	}
	if err != nil {
		return err
	}
	if found.behind > 0 && found.state == "lost" && !e.reported {
		if _, err := e.look(ctx, "", 0, e.acknowledgedAfter(found.pulse)); err != nil {
			return err
		}
		e.reported = true
	}
	if found.behind > 0 && found.state == "kept" {
		// The fences of all pools come first, so that no two holders ever have the same.
		if err := e.raiseAll(ctx, e.fences.highest()); err != nil {
			return err
		}
	}
	if found.behind > 0 {
		e.noticed.Add(1) // after the fences: a fence that is found behind from now on means another older state
	}
	known, _ := e.known()
	if known != "" && known != found.id && found.state == "kept" {
		// The state was recovered. What this server knew may not have been reported, and some of its pools may be gone.
		if err := e.raise(ctx, e.fences.pools(), 0); err != nil {
			return err
		}
	}
	e.reported = e.reported && found.state == "lost"
	if found.id != known || found.state == "lost" && e.Fault() == nil {
		e.executor.ForgetTrail()
	}
	e.learn(found, e.Options.Replicas == 0)
	if found.state == "kept" && found.ahead > time.Second {
		e.clockSteppedBack(found.ahead)
	}
	if e.Options.Replicas > 0 && !e.executor.Clustered() {
		go e.confirm()
	}
	return nil
}

// confirm learns a pulse that the replicas have: one that they do not have may be lost without anything being wrong.
func (e *Epoch) confirm() {
	if !e.confirming.TryLock() {
		return
	}
	defer e.confirming.Unlock()
	call := e.recallCall("", 0, 0)
	call.Slot = string(e.keys.Pool("default")) // the trail that Confirm leaves is in the slot of a pool
	if found, err := parseSeen(e.executor.Confirm(context.Background(), call)); err == nil {
		e.learn(found, true)
	}
}

// look asks Redis which state it holds. begin is the state ('kept' or 'lost') in which to begin an epoch if there is none; empty:
// none is begun. unknown is how many acknowledged allocations are missing from a state that is behind.
func (e *Epoch) look(ctx context.Context, begin string, fenceBehind time.Duration, unknown int64) (seen, error) {
	return parseSeen(e.executor.Read(ctx, e.recallCall(begin, fenceBehind, unknown)))
}

func (e *Epoch) recallCall(begin string, fenceBehind time.Duration, unknown int64) executor.Call {
	id, pulse := e.known()
	maxBehind := e.Options.MaxRollback
	if e.Options.Replicas > 0 {
		maxBehind = 0
	}
	behind := fenceBehind.Milliseconds()
	if fenceBehind > 0 {
		behind = max(behind, 1)
	}
	return e.keys.Call(lua.CheckEpoch, schema, id, uuid.NewString(), begin, cmp.Or(pulse, "0"), e.fences.highest(),
		behind, maxBehind.Milliseconds(), unknown)
}

// seen is the answer of check_epoch.lua.
type seen struct {
	state, id, schema, pulse string
	behind, ahead            time.Duration
	now                      time.Time
	fence                    int64
}

func parseSeen(answer any, err error) (seen, error) {
	if err != nil {
		return seen{}, err
	}
	parts, _ := answer.([]any)
	if len(parts) != 8 {
		return seen{}, errors.New("the record of the epoch in Redis is malformed")
	}
	var texts [8]string
	for i, part := range parts {
		texts[i], _ = part.(string)
	}
	fence, _ := strconv.ParseInt(texts[7], 10, 64)
	return seen{
		state: texts[0], id: texts[1], schema: texts[2], pulse: texts[3], behind: msOf(texts[4]), ahead: msOf(texts[5]),
		now: time.UnixMilli(msOf(texts[6]).Milliseconds()), fence: fence,
	}, nil
}

func msOf(text string) time.Duration {
	n, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(n) * time.Millisecond
}
