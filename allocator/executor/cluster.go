package executor

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// runInCluster runs a script on the master that its slot is on, and follows the slot where it moves.
func (e *Executor) runInCluster(ctx context.Context, cluster *redis.ClusterClient, replicas int, call Call) (any, error) {
	deadline := e.deadline()
	found, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	node, err := cluster.MasterForKey(found, call.Slot)
	if err != nil {
		return nil, notDone("the Cluster is away", err)
	}
	asking := false
	for redirections := 0; ; redirections++ {
		c := newPending(call, deadline)
		c.asking = asking
		answer, err := e.batcher(batcherKey{node: node, replicas: replicas}).do(ctx, c)
		if err == nil {
			return answer, nil
		}
		if node, asking = e.redirect(found, cluster, node, err, redirections); node == nil {
			return nil, err
		}
	}
}

// tryAgain is how long a call waits whose slot stands half here and half there, or that is sent back and forth.
const tryAgain = 10 * time.Millisecond

// redirect says to which node of a Cluster a call should turn that another one has refused, and whether it must ask there
// for a slot that is on its way; nil where it is to fail. What is refused so did not run.
func (e *Executor) redirect(ctx context.Context, cluster *redis.ClusterClient, node *redis.Client, refusal error, redirections int) (next *redis.Client, asking bool) {
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
	// In the last quarter of its time no call is sent any more; see batcher.next.
	if deadline, _ := ctx.Deadline(); pause && time.Until(deadline) < e.opts.Timeout/4+2*tryAgain {
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
	failed, ok := refusal.(*Error)
	if !ok || failed.Outcome != NotDone || failed.Cause == nil {
		return "", ""
	}
	code, rest, _ := strings.Cut(failed.Cause.Error(), " ")
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

// Clustered reports whether the Redis is a Cluster.
func (e *Executor) Clustered() bool {
	_, ok := e.client.(*redis.ClusterClient)
	return ok
}

func (e *Executor) eachMaster(ctx context.Context, do func(context.Context, redis.UniversalClient) error) error {
	cluster, ok := e.client.(*redis.ClusterClient)
	if !ok {
		return do(ctx, e.client)
	}
	return cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return do(ctx, master) })
}
