// Package allocator hands out network ports so that no two holders ever get the same one.
//
// A pool is one port space. Operators define services, each with a range of ports of a pool; clients ask for a port by
// their instance name and get an offer, which they accept, reject, or let expire. All state is in Redis, and every change
// is one atomic Lua script (package lua), so any number of Allocators may work on the same Redis.
package allocator

import (
	"context"
	"slices"
	"time"

	"portmaster/allocator/epoch"
	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
)

// Options are the settings of an Allocator. Those up to Timeout are required.
type Options struct {
	KeyPrefix string        // the first part of every key in Redis
	OfferTTL  time.Duration // how long an offer stays open, in whole milliseconds
	PortMin   int           // the lowest port that a range may hold
	PortMax   int           // the highest
	Timeout   time.Duration // how long one call may wait for Redis
	Queue     int           // how many calls may wait for a node of Redis; 0 is 4096
	Replicas  int           // how many replicas must have a change before it is answered; 0 waits for none

	MaxRollback time.Duration // how much older than what was acknowledged a state may be to be built upon; with Replicas not at all

	MaxServices int // how many services a pool may have; 0 is 10,000
	MaxPools    int // how many pools there may be; 0 is 10,000

	History int // how many events of each service are kept, or a few more; 0: none is written

	MaxWait            time.Duration // how long a call may wait for a port; 0: none may
	MaxWaiting         int           // how many calls of this Allocator may wait at a time; 0 is 2000
	MaxPorts           int           // how many ports one call may ask for; 0 is MaxPorts, and more is not allowed
	Quarantine         time.Duration // how long a port that was found in use is kept out, in whole milliseconds
	ReleaseNeedsSecret bool          // a release must prove which allocation it means

	AllowVolatile bool // Check accepts a Redis that keeps nothing on disk

	Trace executor.Trace // watches the calls to Redis; nil: nobody does
}

// DefaultPool is the pool of a call that names none.
const DefaultPool = "default"

// Allocator hands out the ports of any number of pools. Its only state of its own is what it has seen of the state in Redis, and the
// calls that wait, and who listens. It is safe for concurrent use.
type Allocator struct {
	executor  *executor.Executor
	keys      keyspace.Prefix
	epoch     *epoch.Epoch
	waitlist  waitlist
	followers followers
	opts      Options
}

// New returns an Allocator that keeps its state in the Redis behind client.
func New(client executor.Client, opts Options) *Allocator {
	if opts.Queue == 0 {
		opts.Queue = 4096
	}
	if opts.MaxWaiting == 0 {
		opts.MaxWaiting = 2000
	}
	if opts.MaxPorts == 0 {
		opts.MaxPorts = MaxPorts
	}
	if opts.MaxServices == 0 {
		opts.MaxServices = 10_000
	}
	if opts.MaxPools == 0 {
		opts.MaxPools = 10_000
	}
	a := &Allocator{keys: keyspace.Prefix(opts.KeyPrefix), waitlist: newWaitlist(), opts: opts}
	a.executor = executor.New(client, executor.Options{
		Timeout:  opts.Timeout,
		Limit:    opts.Queue,
		Replicas: opts.Replicas,
		TrailKey: func(slot string) string { return keyspace.Pool(slot).Copied(a.waitlist.server) },
		Missing:  func() { a.epoch.Missing() },
		Trace:    opts.Trace,
	})
	a.epoch = epoch.New(a.executor, a.keys, epoch.Options{
		Replicas: opts.Replicas, MaxRollback: opts.MaxRollback, Quarantine: opts.Quarantine,
	})
	return a
}

// The calls to Redis. Each looks first whether the state is one to work on, and turns errors into those of this package.

// read runs a script that changes nothing, or that may be repeated.
func (a *Allocator) read(ctx context.Context, c executor.Call) (any, error) {
	if err := a.epoch.Open(ctx); err != nil {
		return nil, translate(err)
	}
	answer, err := a.executor.Read(ctx, c)
	return answer, translate(err)
}

// write runs a script that may change something, once, and returns its answer when the replicas have all that the answer rests on.
func (a *Allocator) write(ctx context.Context, c executor.Call) (any, error) {
	if err := a.epoch.Open(ctx); err != nil {
		return nil, translate(err)
	}
	answer, err := a.executor.Write(ctx, c)
	return answer, translate(err)
}

// writeMany is write for a call that may share a script with others. What such a script left undone, it runs by itself.
func (a *Allocator) writeMany(ctx context.Context, c executor.Call) (any, error) {
	answer, err := a.write(ctx, c)
	if err == nil && answer == longWay {
		c.Many = nil
		answer, err = a.write(ctx, c)
	}
	return answer, err
}

// stateBehind is the answer of a script that was told the highest fence seen of its pool: the state is older than that, and
// nothing was done.
const stateBehind = int64(3)

// grant is write for a script that hands out ports. It hands out none in a state that is lost, or that is older than one that this
// server has seen, unless it may be built upon.
func (a *Allocator) grant(ctx context.Context, pool string, c executor.Call) (any, error) {
	for range 3 {
		if err := a.epoch.HandsOut(ctx); err != nil {
			return nil, translate(err)
		}
		answer, err := a.executor.Write(ctx, c)
		if err != nil || answer != stateBehind {
			return answer, translate(err)
		}
		if err := a.epoch.CheckFences(ctx, pool); err != nil {
			return nil, translate(err)
		}
	}
	return nil, unavailable("the state in Redis is older than it was", nil)
}

// How many of many scripts go to a node together. Redis runs a batch before it serves other clients, so these bound how long those
// wait: some 2 ms if an offer takes 10 us.
const (
	callsPerBatch      = 64 // of scripts that take 30 us at most
	heavyCallsPerBatch = 4  // of read_services.lua
)

// runAll runs scripts that may be repeated and wait for no replica, and returns how each ended; see executor.RunAll.
func (a *Allocator) runAll(ctx context.Context, calls []executor.Call, perBatch int) (results []executor.Result) {
	closed := a.epoch.Open(ctx)
	if closed == nil {
		results = a.executor.RunAll(ctx, calls, perBatch)
	} else {
		results = slices.Repeat([]executor.Result{{Err: closed}}, len(calls))
	}
	for i := range results {
		results[i].Err = translate(results[i].Err)
	}
	return results
}
