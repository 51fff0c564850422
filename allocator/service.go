package allocator

import (
	"context"
	"slices"
	"time"

	"portmaster/lua"
)

// Service is a name for ports of a pool: of one range, or of several.
type Service struct {
	Name        string
	Description string
	Start, End  int           // the range, both ends included; if there are several, the first and the last of all ports
	Ranges      []Range       // if there are several, in their order
	Cooldown    time.Duration // how long a port is not offered again after it was released, or its lease ended
	Pick        Pick          // PickByName, or PickRested
	Created     time.Time
	Ports       PortCounts
	Waiting     int      // how many calls wait for a port
	Warnings    []string // what an operator should know about the ranges

	DefaultLease time.Duration // of what asks for none; 0: MaxLease, if there is one, else none
	MaxLease     time.Duration // 0: that of the package

	now      time.Time // Redis's, when this was read
	draining []Range   // those that it had, while ports of them are held
}

// ranges returns the ranges of the service, also if there is one.
func (s Service) ranges() []Range {
	if s.Ranges != nil {
		return s.Ranges
	}
	return []Range{{s.Start, s.End}}
}

// allRanges returns the ranges of the service, and those that drain, in their order.
func (s Service) allRanges() []Range { return sorted(append(slices.Clone(s.ranges()), s.draining...)) }

// PortCounts counts the ports of a service by their state. Total is the sum of Free, Offered, Allocated, and Cooling. Draining says how
// many of those that are offered or allocated are outside of the ranges, and leave the service when they are given back.
type PortCounts struct{ Total, Free, Offered, Allocated, Cooling, Draining int }

// Definition defines a service.
type Definition struct {
	Name        string
	Description string
	Start, End  int
	Ranges      []Range       // in place of Start and End: 1 to MaxRanges, in any order, none of which overlaps another
	Exclude     []Range       // ports of these that the service does not have; others are ignored. At most 1,000
	Cooldown    time.Duration // 0 to MaxLease, in whole milliseconds
	Pick        Pick          // PickByName, or PickRested
	Drain       bool          // ports that leave the ranges while they are held stay until they are given back

	// DefaultLease is the lease of a request that has none, and MaxLease the longest: from now on, also of a renewal. Without a
	// DefaultLease, a request that has none gets MaxLease. Both are MinLease to MaxLease, in whole milliseconds; nil: none.
	DefaultLease, MaxLease *time.Duration
}

// Linux picks its own ephemeral ports from this range by default (net.ipv4.ip_local_port_range).
const (
	ephemeralMin = 32768
	ephemeralMax = 60999
)

// Create defines a new service. It returns ErrInvalid, ErrServiceExists, ErrLimitReached, or ErrRangeOverlap.
func (a *Allocator) Create(ctx context.Context, caller Caller, pool string, d Definition) (Service, error) {
	service, _, err := a.define(ctx, caller, pool, d, false)
	return service, err
}

// Define defines a service, or changes the ranges and description of the one of that name; created says which it was. It
// returns ErrInvalid, ErrLimitReached, ErrRangeOverlap, or ErrRangeInUse if a port held or on offer would fall outside, unless
// d.Drain is set, or if more than 64 ranges would drain: then nothing is changed.
func (a *Allocator) Define(ctx context.Context, caller Caller, pool string, d Definition) (service Service, created bool, err error) {
	return a.define(ctx, caller, pool, d, true)
}

// define defines a service. If it must be as another call has read it, was is what that has read.
func (a *Allocator) define(ctx context.Context, caller Caller, pool string, d Definition, mayExist bool, was ...any) (
	service Service, created bool, err error,
) {
	if d.Ranges, err = a.checkDefinition(pool, d); err != nil {
		return Service{}, false, err
	}
	// A store that lost its state has no service. The loss must be noticed before one is defined there, and hands out ports.
	if err := a.epoch.Recall(ctx); err != nil {
		return Service{}, false, translate(err)
	}
	if err := a.epoch.HandsOut(ctx); err != nil {
		return Service{}, false, translate(err)
	}
	listed, err := a.listPool(ctx, pool)
	if err != nil {
		return Service{}, false, err
	}
	service, created, settled, err := a.defineOnce(ctx, caller, pool, d, mayExist, was...)
	if err != nil && listed && wasRefused(err) {
		a.unlist(ctx, pool)
	}
	if created {
		a.relist(ctx, pool)
	}
	if err != nil || settled {
		return service, created, err
	}
	if err := a.settle(ctx, a.keys.Pool(pool), d.Name); err != nil {
		return Service{}, false, err
	}
	service, err = a.Service(ctx, pool, d.Name)
	return service, created, err
}

// maxSteps bounds how often a script is called that goes through many ports in steps of some 100.
const maxSteps = 10 + 2*65536/100

// defineOnce runs the script until it has an answer: each time that it asks for another call, it has looked at some ports.
// settled is false if the service must be settled afterwards.
func (a *Allocator) defineOnce(ctx context.Context, caller Caller, pool string, d Definition, mayExist bool, was ...any) (
	service Service, created, settled bool, err error,
) {
	args := []any{d.Name, d.Description, textOf(d.Ranges), d.Cooldown.Milliseconds(), flag(mayExist), a.opts.MaxServices, string(d.Pick),
		leaseBounds(valueOf(d.DefaultLease), valueOf(d.MaxLease)), flag(d.Drain)}
	k := a.keys.Pool(pool)
	call := k.Call(lua.Define, d.Name, "", a.withEvents(caller, append(args, was...)...)...)
	other := "" // a service that drained in these ranges
	for range maxSteps {
		answer, err := a.write(ctx, call)
		if err != nil {
			return Service{}, false, false, err
		}
		if answer == int64(0) {
			continue
		}
		if answer == int64(1) {
			return Service{}, false, false, errChanged
		}
		parts, _ := answer.([]any)
		if len(parts) == 2 {
			if other, err = a.settleDraining(ctx, k, other, parts); err != nil {
				return Service{}, false, false, err
			}
			continue
		}
		if len(parts) != 3 {
			return Service{}, false, false, malformed("service", d.Name)
		}
		service, err := parseService(d.Name, parts[0])
		return service, parts[1] == int64(1), parts[2] == int64(0), err
	}
	return Service{}, false, false, unavailable("ports are handed out faster than the range can be checked", nil)
}

// Remove removes a service that holds no port. It returns ErrServiceNotFound, or ErrServiceInUse while it has allocations
// or open offers.
func (a *Allocator) Remove(ctx context.Context, caller Caller, pool, service string) error {
	if err := checkService(pool, service).err(); err != nil {
		return err
	}
	k := a.keys.Pool(pool)
	for range maxSteps {
		left, err := a.write(ctx, k.Call(lua.Remove, service, "", a.withEvents(caller, service)...))
		if err == nil && left == int64(0) {
			a.unlist(ctx, pool)
		}
		if err != nil || left != int64(-1) {
			return a.notGone(ctx, pool, err)
		}
	}
	return unavailable("the service changes faster than it can be removed", nil)
}
