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

	"github.com/redis/go-redis/v9"

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
	Copies    int           // how many replicas must have a change before it is answered; 0 waits for none

	MaxRollback time.Duration // by how much the state may turn out older than what was acknowledged, and is built upon; with Copies by nothing

	MaxServices int // how many services a pool may have; 0 is 10,000
	MaxPools    int // how many pools there may be; 0 is 10,000

	MaxWait            time.Duration // how long a call may wait in line for a port; 0: none may
	MaxWaiting         int           // how many calls of this Allocator may wait in line at a time; 0 is 2000
	MaxPorts           int           // how many ports one call may ask for; 0 is MaxPorts, and more is not allowed
	Quarantine         time.Duration // how long a port that was rejected as in use is kept out; whole milliseconds count
	ReleaseNeedsSecret bool          // a release must prove that it is of the allocation that stands there

	AllowVolatile bool // a Redis that keeps nothing on a disk is no finding of Check
}

// Allocator hands out the ports of any number of pools. All it knows of its own is what it has seen of the state. It is
// safe for concurrent use.
type Allocator struct {
	redis    redis.UniversalClient
	door     *door
	epoch    epoch
	waitlist waitlist
	mending  mending
	opts     Options
}

// Greet makes a call that changes nothing, to hear whether Redis takes any. It is of few words: of a client that has not logged
// in Redis reads ten, and then complains of their number.
func (a *Allocator) Greet(ctx context.Context) error {
	k := a.keys(DefaultPool)
	_, err := a.door.pass(ctx, 0, k, lua.ReadAllocation, k.of(lua.ReadAllocation, "none", ""), []any{"none", "none"})
	if errors.Is(err, ErrServiceNotFound) {
		return nil
	}
	return nothingDone(err)
}

// New returns an Allocator that keeps its state in the Redis behind client, which needs version 6.2 or newer. The client
// must not repeat commands by itself, and must heed contexts (MaxRetries: -1, ContextTimeoutEnabled: true); closing it is
// the caller's.
func New(client redis.UniversalClient, opts Options) *Allocator {
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
	door := &door{redis: client, timeout: opts.Timeout, limit: opts.Queue, copies: opts.Copies}
	a := &Allocator{redis: client, door: door, waitlist: newWaitlist(), opts: opts}
	a.epoch.fences.of = map[string]*poolFence{}
	door.open, door.server, door.trail = a.open, a.waitlist.server, newTrail(a.missesChanges)
	return a
}
