package epoch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// fences are the highest fences that this server has seen, by pool. They only grow, so a pool whose last fence is lower is of an
// older state.
type fences struct {
	mu    sync.Mutex
	of    map[string]*poolFence
	next  []string // the pools to look at next
	max   int64
	count int64 // of allocations that were acknowledged
}

type poolFence struct {
	fence int64 // in microseconds
	used  time.Time
}

// poolRemembered is how long the fence of a pool is known after this server's last allocation in it.
const poolRemembered = time.Hour

// Fences returns the highest fence that this server has seen of a pool, 0 if none, and the highest of all pools. Scripts that hand
// out ports get both.
func (e *Epoch) Fences(pool string) (ofPool, highest int64) {
	f := &e.fences
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen(pool), f.max
}

// seen returns the highest fence seen of a pool, 0 if none. The caller holds f.mu.
func (f *fences) seen(pool string) int64 {
	if known := f.of[pool]; known != nil {
		return known.fence
	}
	return 0
}

// Acknowledge remembers the fence of a new allocation, whose caller is about to be told of it.
func (e *Epoch) Acknowledge(pool string, fence int64) {
	f := &e.fences
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.of[pool]
	if known == nil {
		known = &poolFence{}
		f.of[pool] = known
	}
	known.used = time.Now()
	known.fence = max(known.fence, fence)
	f.max = max(f.max, known.fence)
	f.count++
}

// raise remembers that the fence of a pool, or of any pool if it is "", may be this high by now.
func (f *fences) raise(pool string, fence int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.of[pool]; known != nil {
		known.fence = max(known.fence, fence)
	}
	f.max = max(f.max, fence)
}

// pools returns the pools of which a fence is known.
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

// some returns the next pools to look at, and forgets those in which this server allocated nothing for long.
func (f *fences) some(limit int) []string {
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
	n := min(limit, len(f.next))
	pools := slices.Clone(f.next[:n])
	f.next = f.next[n:]
	return pools
}

// CheckFences looks whether the fences of some pools are behind those that this server has seen: of those named, else of the pools
// whose turn it is. If one is, it returns why no port is handed out now; nil if the state is built upon. In a Cluster it sets the
// fences to the time, so that it is known by how much they are behind: the pulse of the epoch is on one of the nodes only.
func (e *Epoch) CheckFences(ctx context.Context, pools ...string) error {
	if len(pools) == 0 {
		pools = e.fences.some(callsPerBatch)
	}
	noticed := e.noticed.Load()
	var calls []executor.Call
	var seen []int64
	var of []string
	pulses := "0"
	if e.executor.Clustered() && e.Options.Replicas == 0 { // with Replicas, to lose a fence that no replica has is no fault
		pulses = "1"
	}
	for _, pool := range pools {
		highest, _ := e.Fences(pool)
		if highest == 0 {
			continue
		}
		calls = append(calls, e.keys.Pool(pool).Call(lua.RaiseFence, "", "", 0, pulses))
		seen, of = append(seen, highest), append(of, pool)
	}
	if len(calls) == 0 || e.Open(ctx) != nil {
		return nil
	}
	var behind time.Duration
	for i, r := range e.executor.RunAll(ctx, calls, callsPerBatch) {
		last, at, err := parseRaised(r)
		if err == nil {
			behind = max(behind, fenceBehind(last, at, seen[i]))
			if e.Options.Replicas == 0 {
				e.fences.raise(of[i], last) // what other servers gave
			}
		}
		if pulses == "1" && last > 0 && at-last > time.Second.Microseconds() {
			e.fences.raise(of[i], at)
		}
	}
	if behind == 0 {
		return nil
	}
	if !e.executor.Clustered() {
		behind = time.Millisecond // the pulses say how far it is
	}
	if err := e.recallBehind(ctx, behind, noticed); err != nil {
		return err
	}
	return e.Fault()
}

// fenceBehind returns by how much the last fence of a pool is behind the highest that was seen; 0 if it is not. As in
// parts/fence.lua, a pool that has no service may have no fence.
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
func (e *Epoch) raiseAll(ctx context.Context, fence int64) error {
	pools, err := e.executor.Members(ctx, e.keys.Pools())
	if err != nil {
		return err
	}
	return e.raise(ctx, append(pools, e.fences.pools()...), fence)
}

// raise raises the fences of some pools above fence, and above what this server has seen of each.
func (e *Epoch) raise(ctx context.Context, pools []string, fence int64) error {
	calls := make([]executor.Call, len(pools))
	for i, pool := range pools {
		seen, _ := e.Fences(pool)
		calls[i] = e.keys.Pool(pool).Call(lua.RaiseFence, "", "", max(fence, seen), "0")
	}
	for _, r := range e.executor.RunAll(ctx, calls, callsPerBatch) {
		if _, _, err := parseRaised(r); err != nil {
			return err
		}
	}
	return nil
}

// parseRaised reads the answer of raise_fence.lua: the fence that the pool had, and the time, in microseconds.
func parseRaised(r executor.Result) (last, at int64, err error) {
	if r.Err != nil {
		return 0, 0, r.Err
	}
	parts, _ := r.Answer.([]any)
	if len(parts) != 2 {
		return 0, 0, errors.New("the fence of a pool in Redis is malformed")
	}
	texts := [2]string{}
	texts[0], _ = parts[0].(string)
	texts[1], _ = parts[1].(string)
	last, _ = strconv.ParseInt(texts[0], 10, 64)
	at, _ = strconv.ParseInt(texts[1], 10, 64)
	return last, at, nil
}
