package allocator

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// fences are the highest fences that this Allocator has seen, by pool. They only grow, so a pool in which the last one is lower
// is of an older state.
type fences struct {
	mu    sync.Mutex
	of    map[string]*poolFence
	next  []string // pools whose turn it is to be looked at
	max   int64
	count int64 // of allocations that were acknowledged
}

type poolFence struct {
	fence int64 // in microseconds
	used  time.Time
}

// poolRemembered is for how long the fence of a pool is known in which this Allocator made no allocation.
const poolRemembered = time.Hour

// seen returns the highest fence that was seen of a pool, 0 for none.
func (f *fences) seen(pool string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.of[pool]; known != nil {
		return known.fence
	}
	return 0
}

// see remembers the fences of new allocations.
func (f *fences) see(pool string, allocations ...Allocation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.of[pool]
	if known == nil {
		known = &poolFence{}
		f.of[pool] = known
	}
	known.used = time.Now()
	for _, a := range allocations {
		known.fence = max(known.fence, a.Fence)
		f.count++
	}
	f.max = max(f.max, known.fence)
}

// raise remembers that the fence of a pool, or of any if it is "", may be as high by now.
func (f *fences) raise(pool string, fence int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.of[pool]; known != nil {
		known.fence = max(known.fence, fence)
	}
	f.max = max(f.max, fence)
}

// pools returns those of which a fence is known.
func (f *fences) pools() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.of))
}

func (f *fences) highest() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.max
}

func (f *fences) allocations() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// some returns the next pools to look at, and forgets those in which nothing was allocated for long.
func (f *fences) some(most int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.next) == 0 {
		for pool, known := range f.of {
			if time.Since(known.used) > poolRemembered {
				delete(f.of, pool)
			} else {
				f.next = append(f.next, pool)
			}
		}
	}
	n := min(most, len(f.next))
	pools := slices.Clone(f.next[:n])
	f.next = f.next[n:]
	return pools
}

// checkFences looks whether the fences of some pools are behind those that this Allocator saw. In a Cluster it lets them be the
// time, so that it is known by how much they are: the pulse of the epoch is on one of the nodes only.
func (a *Allocator) checkFences(ctx context.Context, pools []string) error {
	noticed := a.epoch.noticed.Load()
	var calls []executor.Call
	var seen []int64
	var of []string
	pulses := a.executor.Clustered() && a.opts.Replicas == 0 // with Replicas what the replicas lack may get lost, and nothing be amiss
	for _, pool := range pools {
		k := a.keys(pool)
		highest := a.epoch.fences.seen(pool)
		if highest == 0 {
			continue
		}
		calls = append(calls, k.call(lua.RaiseFence, k.of(lua.RaiseFence, "", ""), 0, flag(pulses)))
		seen, of = append(seen, highest), append(of, pool)
	}
	if len(calls) == 0 {
		return nil
	}
	var behind time.Duration
	for i, r := range a.runAll(ctx, calls, callsPerBatch) {
		last, at, err := parseRaised(r)
		if err == nil {
			behind = max(behind, fenceBehind(last, at, seen[i]))
			if a.opts.Replicas == 0 {
				a.epoch.fences.raise(of[i], last) // what others gave
			}
		}
		if pulses && last > 0 && at-last > time.Second.Microseconds() {
			a.epoch.fences.raise(of[i], at)
		}
	}
	if behind == 0 {
		return nil
	}
	return a.fellBehind(ctx, behind, noticed)
}

// stateBehind is the answer of a script that was told the highest fence that was seen of the pool: the state is older than that,
// and nothing was done.
const stateBehind = int64(3)

// grantKnown runs a script that hands out ports in a state that is not older than one that was seen.
func (a *Allocator) grantKnown(ctx context.Context, pool string, c executor.Call) (answer any, err error) {
	for range 3 {
		answer, err = a.grant(ctx, c)
		if err != nil || answer != stateBehind {
			return answer, err
		}
		if err := a.checkFences(ctx, []string{pool}); err != nil {
			return nil, err
		}
	}
	return nil, unavailable("the state in Redis is older than it was", nil)
}

// fellBehind deals with a state of which a fence was found behind, unless that was noticed since: it was so often before.
func (a *Allocator) fellBehind(ctx context.Context, behind time.Duration, noticed int64) error {
	if !a.executor.Clustered() {
		behind = time.Millisecond // the pulses say how far it is
	}
	if err := a.recallBehind(ctx, behind, noticed); err != nil {
		return err
	}
	return a.epoch.why()
}

// fenceBehind is by how much the last fence of a pool is behind the highest that was seen; 0 if it is not. As in parts/fence.lua,
// there may be none in a pool that has no service.
func fenceBehind(last, at, seen int64) time.Duration {
	if last == 0 && seen < at-time.Hour.Microseconds() || last >= seen {
		return 0
	}
	if last == 0 {
		return time.Millisecond
	}
	return time.Duration(seen-last) * time.Microsecond
}

// raiseAll raises the fences of all pools.
func (a *Allocator) raiseAll(ctx context.Context, fence int64) error {
	pools, err := a.listedPools(ctx)
	if err != nil {
		return err
	}
	return a.raise(ctx, append(pools, a.epoch.fences.pools()...), fence)
}

// raise raises the fences of some pools above one, and above what this Allocator saw of each.
func (a *Allocator) raise(ctx context.Context, pools []string, fence int64) error {
	calls := make([]executor.Call, len(pools))
	for i, pool := range pools {
		k := a.keys(pool)
		calls[i] = k.call(lua.RaiseFence, k.of(lua.RaiseFence, "", ""), max(fence, a.epoch.fences.seen(pool)), flag(false))
	}
	for _, r := range a.runAllNow(ctx, calls, callsPerBatch) {
		if _, _, err := parseRaised(r); err != nil {
			return err
		}
	}
	return nil
}

// parseRaised reads the answer of raise_fence.lua.
func parseRaised(r executor.Result) (last, at int64, err error) {
	if r.Err != nil {
		return 0, 0, r.Err
	}
	parts, _ := r.Answer.([]any)
	if len(parts) != 2 {
		return 0, 0, malformed("the fence of", "a pool")
	}
	texts := [2]string{}
	texts[0], _ = parts[0].(string)
	texts[1], _ = parts[1].(string)
	last, _ = strconv.ParseInt(texts[0], 10, 64)
	at, _ = strconv.ParseInt(texts[1], 10, 64)
	return last, at, nil
}
