// Package allocator hands out network ports so that no two holders ever get the same one.
//
// A pool is one port space. Operators define services, each with a range of ports of a pool; clients ask for a port by
// their instance name and get an offer, which they accept, reject, or let expire. All state is in Redis, and every change
// is one atomic Lua script (package lua), so any number of Allocators may work on the same Redis.
package allocator

import (
	"context"
	"errors"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Options are the settings of an Allocator. Those up to Timeout are required.
type Options struct {
	KeyPrefix string        // the first part of every key in Redis
	OfferTTL  time.Duration // how long an offer stays open; whole milliseconds count
	PortMin   int           // the lowest port that a range may hold
	PortMax   int           // the highest
	Timeout   time.Duration // how long one call may wait for Redis
	Queue     int           // how many calls may wait for a node of Redis; 0 is 4096
	Replicas  int           // how many replicas must have a change before it is answered; 0 waits for none

	MaxRollback time.Duration // by how much the state may turn out older than what was acknowledged, and is built upon; with Replicas by nothing

	MaxServices int // how many services a pool may have; 0 is 10,000
	MaxPools    int // how many pools there may be; 0 is 10,000

	MaxWait            time.Duration // how long a call may wait in line for a port; 0: none may
	MaxWaiting         int           // how many calls of this Allocator may wait in line at a time; 0 is 2000
	MaxPorts           int           // how many ports one call may ask for; 0 is MaxPorts, and more is not allowed
	Quarantine         time.Duration // how long a port that was rejected as in use is kept out; whole milliseconds count
	ReleaseNeedsSecret bool          // a release must prove that it is of the allocation that stands there

	AllowVolatile bool // a Redis that keeps nothing on a disk is no finding of Check
}

// DefaultPool is the pool of a call that names none.
const DefaultPool = "default"

// Allocator hands out the ports of any number of pools. All it knows of its own is what it has seen of the state. It is
// safe for concurrent use.
type Allocator struct {
	executor *executor.Executor
	keys     keyspace.Prefix
	epoch    epoch
	waitlist waitlist
	mending  mending
	opts     Options
}

// Greet makes a call that changes nothing, to hear whether Redis takes any. It is of few words: of a client that has not logged
// in Redis reads ten, and then complains of their number.
func (a *Allocator) Greet(ctx context.Context) error {
	k := a.keys.Pool(DefaultPool)
	_, err := a.executor.Read(ctx, k.Call(lua.ReadAllocation, "none", "", "none", "none"))
	if err = fromExecutor(err); errors.Is(err, ErrServiceNotFound) {
		return nil
	}
	return err
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
	a.epoch.fences.of = map[string]*poolFence{}
	a.executor = executor.New(client, executor.Options{
		Timeout:  opts.Timeout,
		Limit:    opts.Queue,
		Replicas: opts.Replicas,
		TrailKey: func(slot string) string { return keyspace.Pool(slot).Copied(a.waitlist.server) },
		Missing:  a.missesChanges,
	})
	return a
}

// The calls to Redis. Each finds out first whether the state is one to work on; those that find that out go to the executor directly.

// write runs a script that may change something, once, and returns its answer when the replicas have what it rests on.
func (a *Allocator) write(ctx context.Context, c executor.Call) (any, error) {
	if err := a.open(ctx); err != nil {
		return nil, err
	}
	answer, err := a.executor.Write(ctx, c)
	return answer, fromExecutor(err)
}

// grant is write for a script that hands out ports.
func (a *Allocator) grant(ctx context.Context, c executor.Call) (any, error) {
	if err := a.handsOut(ctx); err != nil {
		return nil, err
	}
	answer, err := a.executor.Write(ctx, c)
	return answer, fromExecutor(err)
}

// writeUnconfirmed is write that waits for no replica.
func (a *Allocator) writeUnconfirmed(ctx context.Context, c executor.Call) (any, error) {
	if err := a.open(ctx); err != nil {
		return nil, err
	}
	answer, err := a.executor.WriteUnconfirmed(ctx, c)
	return answer, fromExecutor(err)
}

// read runs a script that changes nothing.
func (a *Allocator) read(ctx context.Context, c executor.Call) (any, error) {
	if err := a.open(ctx); err != nil {
		return nil, err
	}
	answer, err := a.executor.Read(ctx, c)
	return answer, fromExecutor(err)
}

// How many of many scripts go to a node together. Redis runs all of a batch before it looks at other clients, so these bound how
// long they wait: some 2 ms where an offer takes 10 us.
const (
	callsPerBatch      = 64 // of scripts that take some 30 us at most
	heavyCallsPerBatch = 4  // of read_services.lua
)

// runAll runs scripts that may be repeated and wait for no replica; see executor.RunAll.
func (a *Allocator) runAll(ctx context.Context, calls []executor.Call, perBatch int) []executor.Result {
	if err := a.open(ctx); err != nil {
		results := make([]executor.Result, len(calls))
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	return a.runAllNow(ctx, calls, perBatch)
}

// runAllNow is runAll for the calls that find out which state there is.
func (a *Allocator) runAllNow(ctx context.Context, calls []executor.Call, perBatch int) []executor.Result {
	results := a.executor.RunAll(ctx, calls, perBatch)
	for i := range results {
		results[i].Err = fromExecutor(results[i].Err)
	}
	return results
}
