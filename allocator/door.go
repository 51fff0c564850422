package allocator

import (
	"context"
	"errors"
	"strings"
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

	queues sync.Map // place -> *queue
}

// place is what has a queue of its own. Calls that change nothing wait for no replica, and so not behind those that do.
type place struct {
	node   redis.UniversalClient
	copies int
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
	deadline := time.Now().Add(d.timeout)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	cluster, ok := d.redis.(*redis.ClusterClient)
	if !ok {
		return d.queue(place{d.redis, copies}).do(ctx, newCall(ctx, pool, script, keys, args, deadline))
	}
	found, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	node, err := cluster.MasterForKey(found, string(pool))
	if err != nil {
		return nil, unavailable("the Cluster is away", err)
	}
	asking := false
	for redirections := 0; ; redirections++ {
		c := newCall(ctx, pool, script, keys, args, deadline)
		c.asking = asking
		answer, err := d.queue(place{node, copies}).do(ctx, c)
		if err == nil {
			return answer, nil
		}
		if node, asking = d.redirect(found, cluster, node, err, redirections); node == nil {
			return nil, err
		}
	}
}

func (d *door) queue(at place) *queue {
	if q, ok := d.queues.Load(at); ok {
		return q.(*queue)
	}
	q, _ := d.queues.LoadOrStore(at, &queue{node: at.node, timeout: d.timeout, limit: d.limit, copies: at.copies})
	return q.(*queue)
}

// tryAgain is how long a call waits whose pool stands half here and half there, or that is sent back and forth.
const tryAgain = 10 * time.Millisecond

// redirect says to which node of a Cluster a call should turn that another one has refused, and whether it must ask there
// for a pool that is on its way; nil where it is to fail. What is refused so did not run.
func (d *door) redirect(ctx context.Context, cluster *redis.ClusterClient, node *redis.Client, refusal error, redirections int) (next *redis.Client, asking bool) {
	code, addr := redirection(refusal)
	next, pause := node, redirections > 2
	switch code {
	case "MOVED", "ASK":
		if next = masterAt(ctx, cluster, addr); next == nil {
			next, pause = node, true
		} else {
			asking = code == "ASK"
		}
	case "TRYAGAIN":
		pause = true
	case "":
		return nil, false
	default:
		cluster.ReloadState(ctx) // its master may have a successor
		return nil, false
	}
	// In the last quarter of its time no call is sent any more; see queue.take.
	if deadline, _ := ctx.Deadline(); pause && time.Until(deadline) < d.timeout/4+2*tryAgain {
		return nil, false
	}
	if pause {
		select {
		case <-time.After(tryAgain):
		case <-ctx.Done():
			return nil, false
		}
	}
	return next, asking
}

// redirection reads why nothing was done: "MOVED slot addr", "ASK slot addr", "TRYAGAIN text", or an error of the network.
func redirection(refusal error) (code, addr string) {
	failed, ok := errors.AsType[*Error](refusal)
	if !ok || failed.Code != CodeUnavailable || failed.cause == nil {
		return "", ""
	}
	code, rest, _ := strings.Cut(failed.cause.Error(), " ")
	_, addr, _ = strings.Cut(rest, " ")
	return code, addr
}

// masterAt finds a master by its address, asking the Cluster anew; nil where there is none yet.
func masterAt(ctx context.Context, cluster *redis.ClusterClient, addr string) (found *redis.Client) {
	var mu sync.Mutex
	_ = cluster.ForEachMaster(ctx, func(_ context.Context, master *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		if master.Options().Addr == addr {
			found = master
		}
		return nil
	})
	return found
}
