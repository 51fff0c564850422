package allocator

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"portmaster/lua"
)

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
	fields, err := a.executor.Fields(ctx, a.keys.Epoch(), "id", "state", "behind", "unknown", "fence")
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
	answer, err := a.executor.WriteUnconfirmed(ctx, a.keys.Call(lua.Recover, says[0], uuid.NewString()))
	if err == nil && answer != int64(1) {
		err = unavailable("the state was changed meanwhile", nil)
	}
	return found, fromExecutor(err)
}
