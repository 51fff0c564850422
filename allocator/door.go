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
	c := newCall(ctx, pool, script, keys, args, deadline)
	for {
		answer, err := d.queue(place{node, copies}).do(ctx, c)
		if err == nil {
			return answer, nil
		}
		again := newCall(ctx, pool, script, keys, args, deadline)
		if node = redirect(found, cluster, node, err, again); node == nil {
			return nil, err
		}
		c = again
	}
}

func (d *door) queue(at place) *queue {
	if q, ok := d.queues.Load(at); ok {
		return q.(*queue)
	}
	q, _ := d.queues.LoadOrStore(at, &queue{node: at.node, timeout: d.timeout, limit: d.limit, copies: at.copies})
	return q.(*queue)
}

// tryAgain is how long a call waits whose pool stands half here and half there, or whose new node is not known yet.
const tryAgain = 10 * time.Millisecond

// redirect says which node of a Cluster a call should turn to that another one has refused; nil where it is to fail. What
// is refused so did not run.
func redirect(ctx context.Context, cluster *redis.ClusterClient, node *redis.Client, refusal error, again *call) *redis.Client {
	code, addr := redirection(refusal)
	switch code {
	case "MOVED", "ASK":
		again.asking = code == "ASK"
		if next := masterAt(ctx, cluster, addr); next != nil {
			return next
		}
	case "TRYAGAIN":
	case "":
		return nil
	default:
		cluster.ReloadState(ctx) // its master may have a successor
		return nil
	}
	select {
	case <-time.After(tryAgain):
		return node
	case <-ctx.Done():
		return nil
	}
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
