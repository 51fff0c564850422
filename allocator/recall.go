package allocator

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"

	"portmaster/lua"
)

// How this Allocator finds out which state Redis holds; epoch.go is what it makes of that.

// recall looks whether the state is still the one that this Allocator knew, and no older one. If it is lost, no port is handed out
// until it is recovered.
func (a *Allocator) recall(ctx context.Context) error {
	before := a.epoch.begun.Load()
	a.epoch.recalling.Lock()
	defer a.epoch.recalling.Unlock()
	if a.epoch.begun.Load() != before {
		return a.epoch.failed // another one has looked since this was called
	}
	return a.recallNow(ctx, 0)
}

// recallBehind is recall after a fence was found behind by so much, unless the state was noticed to be behind since it was so often.
func (a *Allocator) recallBehind(ctx context.Context, behind time.Duration, noticed int64) error {
	a.epoch.recalling.Lock()
	defer a.epoch.recalling.Unlock()
	if a.epoch.noticed.Load() != noticed {
		return nil
	}
	return a.recallNow(ctx, behind)
}

// recallNow is recall by the one that looks; fenceBehind is by how much a fence was found behind.
func (a *Allocator) recallNow(ctx context.Context, fenceBehind time.Duration) error {
	if a.epoch.converting.Load() {
		return unavailable("the state is converted from that of an older server", nil)
	}
	a.epoch.begun.Add(1)
	a.epoch.failed = a.lookAndLearn(ctx, fenceBehind)
	return a.epoch.failed
}

func (a *Allocator) lookAndLearn(ctx context.Context, fenceBehind time.Duration) error {
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
	if found.behind > 0 && found.state == "kept" {
		// The fences of all pools come first, so that no two holders ever have the same.
		if err := a.raiseAll(ctx, a.epoch.fences.highest()); err != nil {
			return err
		}
	}
	if found.behind > 0 {
		a.epoch.noticed.Add(1) // after the fences: who finds one behind from now on has found another older state
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
	a.epoch.learn(found, a.opts.Replicas == 0)
	if found.state == "kept" && found.ahead > time.Second {
		a.clockSteppedBack(found.ahead)
	}
	if a.opts.Replicas > 0 && !a.executor.Clustered() {
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
		for a.recallBehind(context.Background(), time.Millisecond, a.epoch.noticed.Load()) != nil {
			time.Sleep(time.Second)
		}
	}()
}

// epochSeen is the answer of check_epoch.lua.
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
	if a.opts.Replicas > 0 {
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
		answer, err = a.executor.Confirm(ctx, a.keys(DefaultPool).call(lua.CheckEpoch, keysOf, args...))
	} else {
		answer, err = a.executor.Read(ctx, keys(a.epochKey()).call(lua.CheckEpoch, keysOf, args...))
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

// notGone is the error of a call about something that is not there, or another's. If that is so since the state is lost, it is
// not told, lest a holder concludes that its port is gone; and since this server may not have noticed yet, it looks.
func (a *Allocator) notGone(ctx context.Context, pool string, err error) error {
	failed, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	switch failed.Code {
	case CodeServiceNotFound, CodePortNotFound, CodeOfferNotFound, CodeSecretMismatch, CodePreconditionFailed:
		if err := a.recall(ctx); err != nil {
			return err
		}
		if err := a.checkFences(ctx, []string{pool}); err != nil {
			return err
		}
		return cmp.Or(a.epoch.why(), err)
	}
	return err
}
