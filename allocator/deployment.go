package allocator

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"

	"github.com/google/uuid"

	"portmaster/lua"
)

// deployment remembers which state it was that this Allocator last saw in Redis, so that it notices when that is gone.
// Ports that are given out from an empty store may have holders that nobody knows of any more.
type deployment struct {
	id   atomic.Value // string: that of the state last seen
	lost atomic.Bool
}

const stateLost = "the state that was in Redis is gone, and no port is handed out until an operator runs portmaster recover"

// recall looks whether the state is still there. Where it is lost, no port is handed out until it is recovered.
func (a *Allocator) recall(ctx context.Context) error {
	known, _ := a.deployment.id.Load().(string)
	answer, err := a.door.run(ctx, 0, keys(a.deploymentKey()), lua.Recall, []string{a.deploymentKey()}, []any{known, uuid.NewString()})
	if err != nil {
		return nothingDone(err)
	}
	parts, _ := answer.([]any)
	if len(parts) != 2 {
		return malformed("the mark of the", "deployment")
	}
	lost := parts[1] == "lost"
	if !lost {
		a.deployment.id.Store(parts[0])
	}
	a.deployment.lost.Store(lost)
	return nil
}

// refusal returns why no port is handed out; nil where all is well.
func (d *deployment) refusal() error {
	if d.lost.Load() {
		return unavailable(stateLost, nil)
	}
	return nil
}

// notGone is the error of a call about something that is not there, or another's. Where that is so since the state is lost, it is
// not told, lest a holder concludes that its port is gone; and since this server may not have noticed yet, it looks.
func (a *Allocator) notGone(ctx context.Context, err error) error {
	failed, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	switch failed.Code {
	case CodeServiceNotFound, CodePortNotFound, CodeOfferNotFound, CodeSecretMismatch, CodePreconditionFailed:
		if err := a.recall(ctx); err != nil {
			return err
		}
		return cmp.Or(a.deployment.refusal(), err)
	}
	return err
}

// Recover declares the state that is in Redis now to be the one that counts, which ends the refusal to hand out ports. needed is
// false where nothing was lost: then it changes nothing.
func (a *Allocator) Recover(ctx context.Context) (needed bool, err error) {
	answer, err := a.door.run(ctx, 0, keys(a.deploymentKey()), lua.Recover, []string{a.deploymentKey()}, []any{uuid.NewString()})
	return answer == "lost", err
}
