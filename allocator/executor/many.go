package executor

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// RunAll runs scripts that wait for no replica, each once, and returns how each ended, in their order. They can all be repeated: an
// outcome that is not known is NotDone.
//
// They go out in batches of perBatch, one after the other, each within the timeout of a call; the nodes of a Cluster are asked at the
// same time. A node that did not answer a batch is not asked for the rest, so that one which hangs costs a timeout, however many there are.
func (e *Executor) RunAll(ctx context.Context, calls []Call, perBatch int) []Result {
	ended := func(error) {}
	if e.opts.Trace != nil && len(calls) > 0 {
		ended = e.opts.Trace(ctx, calls[0].Script.Name)
	}
	results := e.runAll(ctx, calls, perBatch)
	var failed error
	for i := range results {
		results[i].Err = nothingDone(results[i].Err)
		failed = cmp.Or(failed, failure(results[i].Err))
	}
	ended(failed)
	return results
}

func (e *Executor) runAll(ctx context.Context, calls []Call, perBatch int) []Result {
	results := make([]Result, len(calls))
	cluster, ok := e.client.(*redis.ClusterClient)
	if !ok {
		all := make([]int, len(calls))
		for i := range all {
			all[i] = i
		}
		e.runOn(ctx, e.client, calls, all, perBatch, results)
		return results
	}
	ofNode := map[*redis.Client][]int{}
	for i, c := range calls {
		node, err := cluster.MasterForKey(ctx, c.Slot)
		if err != nil { // it is not known who the masters are
			for i := range results {
				results[i].Err = notDone("the Cluster is away", err)
			}
			return results
		}
		ofNode[node] = append(ofNode[node], i)
	}
	var running sync.WaitGroup
	for node, some := range ofNode {
		running.Go(func() {
			e.runOn(ctx, node, calls, some, perBatch, results)
			e.runMoved(ctx, cluster, calls, some, results)
		})
	}
	running.Wait()
	return results
}

// runOn runs some of the calls on a node.
func (e *Executor) runOn(ctx context.Context, node redis.UniversalClient, calls []Call, which []int, perBatch int, results []Result) {
	var away error
	for some := range slices.Chunk(which, perBatch) {
		if away != nil {
			for _, i := range some {
				results[i].Err = notDone("Redis did not answer the calls before", away)
			}
			continue
		}
		batch := make([]*pending, len(some))
		deadline := e.deadline()
		for n, i := range some {
			batch[n] = newPending(calls[i], deadline)
		}
		silent := 0
		for n, r := range e.batcher(batcherKey{node: node, many: true}).doAll(ctx, batch) {
			results[some[n]] = r
			if isSilent(r.Err) {
				silent++
			}
		}
		if silent == len(some) {
			away = results[some[0]].Err
		}
	}
}

// redirectedAtOnce is how many calls follow their slots at the same time.
const redirectedAtOnce = 64

// runMoved runs those of the calls once more that a node of a Cluster has refused because their slot is elsewhere, each by
// itself. Where the node did not answer, its successor is looked for.
func (e *Executor) runMoved(ctx context.Context, cluster *redis.ClusterClient, calls []Call, which []int, results []Result) {
	var moved []int
	away := false
	for _, i := range which {
		switch code, _ := redirection(results[i].Err); code {
		case "MOVED", "ASK", "TRYAGAIN":
			moved = append(moved, i)
		case "":
		default:
			away = true
		}
	}
	if away {
		cluster.ReloadState(ctx)
	}
	for some := range slices.Chunk(moved, redirectedAtOnce) {
		var running sync.WaitGroup
		for _, i := range some {
			running.Go(func() {
				answer, err := e.runInCluster(ctx, cluster, 0, calls[i])
				results[i] = Result{answer, err}
			})
		}
		running.Wait()
	}
}

// isSilent reports whether a call failed without a word of Redis.
func isSilent(err error) bool {
	failed, ok := err.(*Error)
	return ok && !isReply(failed.Cause)
}
