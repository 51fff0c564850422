package allocator

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// door is the way of every script to Redis. It finds the node that a pool is on, and leaves the call to the queue of that
// node, so that in a Cluster a node that hangs holds up no pool but its own.
type door struct {
	redis   redis.UniversalClient
	timeout time.Duration
	limit   int // how many calls may wait for one node
	copies  int // how many replicas must have a change before it is answered

	server string // the id of this server
	trail  *trail
	open   func(context.Context) error // why no call may go to Redis now; nil if all may

	queues sync.Map // place -> *queue
}

// place is what has a queue of its own. Calls that change nothing wait for no replica, and so not behind those that do; and
// nobody waits for the answers to many.
type place struct {
	node   redis.UniversalClient
	copies int
	many   bool // of runAll
}

// change runs a script that may change something, once. Errors are as those of queue.do.
func (d *door) change(ctx context.Context, pool keys, script *lua.Script, keys []string, args ...any) (any, error) {
	return d.run(ctx, d.copies, pool, script, keys, args)
}

// read runs a script that changes nothing: where no answer came, nothing was done.
func (d *door) read(ctx context.Context, pool keys, script *lua.Script, keys []string, args ...any) (any, error) {
	answer, err := d.run(ctx, 0, pool, script, keys, args)
	return answer, nothingDone(err)
}

func (d *door) run(ctx context.Context, copies int, pool keys, script *lua.Script, keys []string, args []any) (any, error) {
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	return d.pass(ctx, copies, pool, script, keys, args)
}

// pass is run for the calls that find out which state there is.
func (d *door) pass(ctx context.Context, copies int, pool keys, script *lua.Script, keys []string, args []any) (any, error) {
	deadline := d.deadline(ctx)
	if cluster, ok := d.redis.(*redis.ClusterClient); ok {
		return d.runInCluster(ctx, cluster, copies, pool, script, keys, args, deadline)
	}
	return d.queue(place{node: d.redis, copies: copies}).do(ctx, newCall(ctx, pool, script, keys, args, deadline))
}

// deadline returns when a call that is made now has to end.
func (d *door) deadline(ctx context.Context) time.Time {
	deadline := time.Now().Add(d.timeout)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		return end
	}
	return deadline
}

func (d *door) queue(at place) *queue {
	if q, ok := d.queues.Load(at); ok {
		return q.(*queue)
	}
	q, _ := d.queues.LoadOrStore(at, &queue{node: at.node, timeout: d.timeout, limit: d.limit, copies: at.copies, server: d.server, trail: d.trail})
	return q.(*queue)
}
