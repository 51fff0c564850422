package epoch

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"

	"portmaster/lua"
)

// Loss is what servers reported of a state that is lost.
type Loss struct {
	Known   bool          // an older state of the same epoch stands in its place, not another one
	Behind  time.Duration // how much older it is, as the servers noticed
	Unknown int64         // how many allocations they acknowledged since then that are not in it

	id    string
	fence int64 // the highest reported
}

// Lost reads whether Redis holds a state that is lost, and what servers reported of it.
func (e *Epoch) Lost(ctx context.Context) (loss Loss, isLost bool, err error) {
	if err := e.Open(ctx); err != nil {
		return loss, false, err
	}
	fields, err := e.executor.Fields(ctx, e.keys.Epoch(), "id", "state", "behind", "unknown", "fence")
	if err != nil {
		return loss, false, err
	}
	var texts [5]string
	for i, field := range fields {
		texts[i], _ = field.(string)
	}
	if texts[1] != "lost" {
		return loss, false, nil
	}
	loss.id, loss.Behind = texts[0], msOf(texts[2])
	loss.Known = loss.Behind > 0
	loss.Unknown, _ = strconv.ParseInt(texts[3], 10, 64)
	loss.fence, _ = strconv.ParseInt(texts[4], 10, 64)
	return loss, true, nil
}

// Recover makes the state that is in Redis now the one that counts, which ends the refusal to hand out ports. First it raises the
// fences of all pools above those that servers reported.
func (e *Epoch) Recover(ctx context.Context, loss Loss) error {
	fence := loss.fence
	if now, err := e.executor.Time(ctx); err == nil {
		fence = max(fence, now.UnixMicro())
	}
	if err := e.raiseAll(ctx, fence); err != nil {
		return err
	}
	answer, err := e.executor.WriteUnconfirmed(ctx, e.keys.Call(lua.Recover, loss.id, uuid.NewString()))
	if err == nil && answer != int64(1) {
		return &Error{"the state was changed meanwhile"}
	}
	return err
}
