package allocator

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"portmaster/lua"
)

// Service is a named range of ports of a pool.
type Service struct {
	Name        string
	Description string
	Start, End  int           // the range, both ends included
	Cooldown    time.Duration // how long a port that was released, or ran out, is not offered again
	Created     time.Time
	Ports       PortCounts
	Waiting     int      // how many calls wait in line for a port
	Warnings    []string // what an operator should know about the range

	now time.Time // Redis's, when this was read
}

// PortCounts says what became of the ports of a service. Total is the sum of the others.
type PortCounts struct{ Total, Free, Offered, Allocated, Cooling int }

// Definition is what defines a service.
type Definition struct {
	Name        string
	Description string
	Start, End  int
	Cooldown    time.Duration // 0 to MaxLease, in whole milliseconds
}

// Create defines a new service. It returns ErrInvalid, ErrServiceExists, ErrLimitReached, or ErrRangeOverlap.
func (a *Allocator) Create(ctx context.Context, pool string, d Definition) (Service, error) {
	service, _, err := a.define(ctx, pool, d, false)
	return service, err
}

// Define defines a service, or changes the range and description of the one of that name; created says which it was. It
// returns ErrInvalid, ErrLimitReached, ErrRangeOverlap, or ErrRangeInUse where a port held or on offer would fall outside: then all is as
// before.
func (a *Allocator) Define(ctx context.Context, pool string, d Definition) (service Service, created bool, err error) {
	return a.define(ctx, pool, d, true)
}

func (a *Allocator) define(ctx context.Context, pool string, d Definition, mayExist bool) (service Service, created bool, err error) {
	if err := a.checkDefinition(pool, d); err != nil {
		return Service{}, false, err
	}
	// A store that lost its state has no service: so none gets ports before that is noticed.
	if err := a.recall(ctx); err != nil {
		return Service{}, false, err
	}
	if err := a.handsOut(ctx); err != nil {
		return Service{}, false, err
	}
	listed, err := a.listPool(ctx, pool)
	if err != nil {
		return Service{}, false, err
	}
	service, created, settled, err := a.defineOnce(ctx, pool, d, mayExist)
	if err != nil && listed && wasRefused(err) {
		a.unlist(ctx, pool)
	}
	if created {
		a.relist(ctx, pool)
	}
	if err != nil || settled {
		return service, created, err
	}
	if err := a.settle(ctx, a.keys(pool), d.Name); err != nil {
		return Service{}, false, err
	}
	service, err = a.Service(ctx, pool, d.Name)
	return service, created, err
}

// maxSteps is how often a script is called at most that goes through many ports a step at a time.
const maxSteps = 10 + 2*65536/100

// defineOnce runs the script until it has an answer: each time that it asks for another call it has looked at some ports.
// settled is false where the service has still to be put in order.
func (a *Allocator) defineOnce(ctx context.Context, pool string, d Definition, mayExist bool) (service Service, created, settled bool, err error) {
	k := a.keys(pool)
	for range maxSteps {
		answer, err := a.write(ctx, k.call(lua.Define, k.of(lua.Define, d.Name, ""), d.Name, d.Description, d.Start, d.End, d.Cooldown.Milliseconds(), flag(mayExist), a.opts.MaxServices))
		if err != nil {
			return Service{}, false, false, err
		}
		if answer == int64(0) {
			continue
		}
		parts, _ := answer.([]any)
		if len(parts) != 3 {
			return Service{}, false, false, malformed("service", d.Name)
		}
		service, err := parseService(d.Name, parts[0])
		return service, parts[1] == int64(1), parts[2] == int64(0), err
	}
	return Service{}, false, false, unavailable("ports are handed out faster than the range can be checked", nil)
}

// settle puts a service in order: it gives back ports whose rest is over, and ends what a change of its range has begun.
func (a *Allocator) settle(ctx context.Context, pool keys, service string) error {
	for range maxSteps {
		answer, err := a.write(ctx, pool.call(lua.Settle, pool.of(lua.Settle, service, "")))
		if err != nil || answer == int64(1) {
			return err
		}
	}
	return unavailable("the service changes faster than its ports can be updated", nil)
}

// Remove removes a service that holds no port. It returns ErrServiceNotFound, or ErrServiceInUse while it has allocations
// or open offers.
func (a *Allocator) Remove(ctx context.Context, pool, service string) error {
	if err := checkService(pool, service).err(); err != nil {
		return err
	}
	k := a.keys(pool)
	for range maxSteps {
		left, err := a.write(ctx, k.call(lua.Remove, k.of(lua.Remove, service, ""), service))
		if err == nil && left == int64(0) {
			a.unlist(ctx, pool)
		}
		if err != nil || left != int64(-1) {
			return a.notGone(ctx, pool, err)
		}
	}
	return unavailable("the service changes faster than it can be removed", nil)
}

func toInt(v any) (int64, error) {
	if n, ok := v.(int64); ok {
		return n, nil
	}
	s, _ := v.(string)
	return strconv.ParseInt(s, 10, 64)
}

func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// malformed is the error of a record in Redis that this program did not write.
func malformed(kind, name string) error {
	return fmt.Errorf("the record of %s %s in Redis is malformed", kind, name)
}
