package allocator

import (
	"context"
	"iter"
	"slices"

	"github.com/redis/go-redis/v9"
)

// Pool is one port space.
type Pool struct {
	Name     string
	Services int // how many are defined
}

// Pools lists the pools that were ever given a service, by name: those from cursor ("" for the first), limit of them at
// most. next is the cursor of the rest, "" where there is none.
func (a *Allocator) Pools(ctx context.Context, cursor string, limit int) (pools []Pool, next string, err error) {
	var f faults
	f.limit(limit)
	if err := f.err(); err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	names, err := a.redis.SMembers(ctx, a.poolsKey()).Result()
	if err != nil {
		return nil, "", nothingDone(classify(err))
	}
	slices.Sort(names)
	from, _ := slices.BinarySearch(names, cursor)
	names = names[from:]
	if len(names) > limit {
		next, names = names[limit], names[:limit]
	}
	counts := make([]*redis.IntCmd, len(names))
	_, err = a.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, name := range names {
			counts[i] = p.ZCard(ctx, a.keys(name).services())
		}
		return nil
	})
	if err != nil {
		return nil, "", nothingDone(classify(err))
	}
	for i, name := range names {
		pools = append(pools, Pool{Name: name, Services: int(counts[i].Val())})
	}
	return pools, next, nil
}

// listPool puts a pool into the list, before it gets a service. The list is in a slot of its own, so no script can do it.
func (a *Allocator) listPool(ctx context.Context, pool string) error {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	if err := a.redis.SAdd(ctx, a.poolsKey(), pool).Err(); err != nil {
		return nothingDone(classify(err))
	}
	return nil
}

// PooledService is a service and the pool that it belongs to.
type PooledService struct {
	Pool string
	Service
}

// Everything walks the services of all pools. It ends at the first error.
func (a *Allocator) Everything(ctx context.Context) iter.Seq2[PooledService, error] {
	return func(yield func(PooledService, error) bool) {
		var pools []Pool
		for cursor, more := "", true; more; more = cursor != "" {
			var err error
			if pools, cursor, err = a.Pools(ctx, cursor, MaxPage); err != nil {
				yield(PooledService{}, err)
				return
			}
			for _, pool := range pools {
				if !a.everyService(ctx, pool.Name, yield) {
					return
				}
			}
		}
	}
}

func (a *Allocator) everyService(ctx context.Context, pool string, yield func(PooledService, error) bool) bool {
	var services []Service
	for cursor, more := "", true; more; more = cursor != "" {
		var err error
		if services, cursor, err = a.Services(ctx, pool, cursor, MaxPage); err != nil {
			return yield(PooledService{}, err) && false
		}
		for _, service := range services {
			if !yield(PooledService{pool, service}, nil) {
				return false
			}
		}
	}
	return true
}

// PoolStats returns the figures of the connections to Redis.
func (a *Allocator) PoolStats() *redis.PoolStats { return a.redis.PoolStats() }
