package allocator

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// job is one script of many.
type job struct {
	pool   keys
	script *lua.Script
	keys   []string
	args   []any
}

// result is how a call ended. Errors are as those of queue.do.
type result struct {
	answer any
	err    error
}

// How many scripts of many go to a node together. Redis runs all of a trip before it looks at other clients, so these bound how
// long they wait: some 2 ms where an offer takes 10 us.
const (
	jobsPerTrip      = 64 // of scripts that take some 30 us at most
	heavyJobsPerTrip = 4  // of read_services.lua
)

// runAll runs scripts that wait for no replica, each once, and returns how each ended, in their order. They go out in
// batches of perTrip, one after the other, each within the timeout of a call; the nodes of a Cluster are asked at the same time. A node
// that did not answer a batch is not asked for the rest, so that one which hangs costs a timeout, however many there are.
func (d *door) runAll(ctx context.Context, jobs []job, perTrip int) []result {
	if err := d.open(ctx); err != nil {
		results := make([]result, len(jobs))
		for i := range results {
			results[i].err = err
		}
		return results
	}
	return d.passAll(ctx, jobs, perTrip)
}

// passAll is runAll for the calls that find out which state there is.
func (d *door) passAll(ctx context.Context, jobs []job, perTrip int) []result {
	results := make([]result, len(jobs))
	cluster, ok := d.redis.(*redis.ClusterClient)
	if !ok {
		all := make([]int, len(jobs))
		for i := range all {
			all[i] = i
		}
		d.runOn(ctx, d.redis, jobs, all, perTrip, results)
		return results
	}
	ofNode := map[*redis.Client][]int{}
	for i, j := range jobs {
		node, err := cluster.MasterForKey(ctx, string(j.pool))
		if err != nil { // it is not known who the masters are
			for i := range results {
				results[i].err = unavailable("the Cluster is away", err)
			}
			return results
		}
		ofNode[node] = append(ofNode[node], i)
	}
	var running sync.WaitGroup
	for node, some := range ofNode {
		running.Go(func() {
			d.runOn(ctx, node, jobs, some, perTrip, results)
			d.runMoved(ctx, cluster, jobs, some, results)
		})
	}
	running.Wait()
	return results
}

// runOn runs some of the jobs on a node.
func (d *door) runOn(ctx context.Context, node redis.UniversalClient, jobs []job, which []int, perTrip int, results []result) {
	var away error
	for some := range slices.Chunk(which, perTrip) {
		if away != nil {
			for _, i := range some {
				results[i].err = unavailable("Redis did not answer the calls before", away)
			}
			continue
		}
		calls := make([]*call, len(some))
		deadline := d.deadline(ctx)
		for n, i := range some {
			calls[n] = newCall(ctx, jobs[i].pool, jobs[i].script, jobs[i].keys, jobs[i].args, deadline)
		}
		silent := 0
		for n, r := range d.queue(place{node: node, many: true}).doAll(ctx, calls) {
			results[some[n]] = r
			if isSilent(r.err) {
				silent++
			}
		}
		if silent == len(some) {
			away = results[some[0]].err
		}
	}
}

// runMoved runs those of the jobs once more that a node of a Cluster has refused because their pool is elsewhere, each by
// itself. Where the node did not answer, its successor is looked for.
func (d *door) runMoved(ctx context.Context, cluster *redis.ClusterClient, jobs []job, which []int, results []result) {
	var moved []int
	away := false
	for _, i := range which {
		switch code, _ := redirection(results[i].err); code {
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
	for some := range slices.Chunk(moved, jobsPerTrip) {
		var running sync.WaitGroup
		for _, i := range some {
			running.Go(func() {
				j := jobs[i]
				answer, err := d.runInCluster(ctx, cluster, 0, j.pool, j.script, j.keys, j.args, d.deadline(ctx))
				results[i] = result{answer, err}
			})
		}
		running.Wait()
	}
}

// isSilent reports whether a call failed without a word of Redis.
func isSilent(err error) bool {
	failed, ok := errors.AsType[*Error](err)
	return ok && (failed.Code == CodeUnavailable || failed.Code == CodeOutcomeUnknown) && !isReply(failed.cause)
}
