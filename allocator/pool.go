package allocator

import (
	"cmp"
	"context"
	"slices"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Pool is one port space.
type Pool struct {
	Name     string
	Services int // how many are defined; -1 if its node of a Cluster did not answer
}

// Pools lists the pools that have a service, by name: at most limit of them, from cursor ("" for the first). next is the cursor of
// the rest, "" if there is none. If listed is not nil, pools for which it returns false are left out.
func (a *Allocator) Pools(ctx context.Context, listed func(pool string) bool, cursor string, limit int) (pools []Pool, next string, err error) {
	var f faults
	f.limit(limit)
	if err := f.err(); err != nil {
		return nil, "", err
	}
	names, err := a.listedPools(ctx)
	if err != nil {
		return nil, "", err
	}
	if listed != nil {
		names = slices.DeleteFunc(names, func(pool string) bool { return !listed(pool) })
	}
	from, _ := slices.BinarySearch(names, cursor)
	for some := range slices.Chunk(names[from:], limit+1) {
		counts, err := a.countServices(ctx, some)
		if err != nil {
			return nil, "", err
		}
		var empty []string
		for i, name := range some {
			switch {
			case counts[i] == 0:
				empty = append(empty, name)
			case len(pools) < limit:
				pools = append(pools, Pool{name, counts[i]})
			case next == "":
				next = name
			}
		}
		a.unlist(ctx, empty...)
		if next != "" {
			break
		}
	}
	return pools, next, nil
}

// listedPools returns the names in the list, in order.
func (a *Allocator) listedPools(ctx context.Context) ([]string, error) {
	names, err := a.executor.Members(ctx, a.keys.Pools())
	return names, translate(err)
}

// countServices returns how many services each of some pools has, -1 if its node did not answer. It is an error if none did.
func (a *Allocator) countServices(ctx context.Context, pools []string) (counts []int, err error) {
	calls := make([]executor.Call, len(pools))
	for i, pool := range pools {
		calls[i] = a.keys.Pool(pool).ListServices(0, 0)
	}
	counts = make([]int, len(pools))
	unknown := 0
	for i, r := range a.runAll(ctx, calls, callsPerBatch) {
		listed, malformed := keyspace.ParseListed(r.Answer)
		counts[i] = listed.Count
		if failed := cmp.Or(r.Err, malformed); failed != nil {
			counts[i], err = -1, failed
			unknown++
		}
	}
	if unknown < len(pools) {
		err = nil
	}
	return counts, err
}

// A pool is listed if and only if it has a service, although no script can see both: the list is in a slot of its own. So
// a pool is listed before it is given a service; and a call that has brought a pool its first service, removed its last, or changed
// the list looks at the other afterwards, until both agree: of any two calls the later one finds what the earlier one has done.
// (If a server dies between two steps, a pool without services stays listed until a server looks at the list; or, if another
// call brings a service at that moment, a pool with a service stays unlisted until something is defined in it.)

// listPool lists a pool before it is given a service; added says that it was not listed.
func (a *Allocator) listPool(ctx context.Context, pool string) (added bool, err error) {
	answer, err := a.read(ctx, a.keys.Call(lua.ListPool, pool, a.opts.MaxPools))
	return answer == int64(1), err
}

// relist lists pools that have a service.
func (a *Allocator) relist(ctx context.Context, pools ...string) {
	if len(pools) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	calls := make([]executor.Call, len(pools))
	for i, pool := range pools {
		calls[i] = a.keys.Call(lua.ListPool, pool, "")
	}
	var added []string
	for i, r := range a.runAll(ctx, calls, callsPerBatch) {
		if r.Answer == int64(1) {
			added = append(added, pools[i])
		}
	}
	empty, _ := a.split(ctx, added)
	a.unlist(ctx, empty...)
}

// unlist takes pools that have no service out of the list. Without an answer it looks at them nevertheless: they may be unlisted.
func (a *Allocator) unlist(ctx context.Context, pools ...string) {
	ctx = context.WithoutCancel(ctx)
	for some := range slices.Chunk(pools, 250) {
		args := make([]any, len(some))
		for i, pool := range some {
			args[i] = pool
		}
		a.runAll(ctx, []executor.Call{a.keys.Call(lua.UnlistPools, args...)}, 1)
		_, others := a.split(ctx, some)
		a.relist(ctx, others...)
	}
}

// split separates the pools that have no service from those that have some, or may have: their node did not answer.
func (a *Allocator) split(ctx context.Context, pools []string) (empty, others []string) {
	counts, err := a.countServices(ctx, pools)
	for i, pool := range pools {
		if err == nil && counts[i] == 0 {
			empty = append(empty, pool)
		} else {
			others = append(others, pool)
		}
	}
	return empty, others
}
