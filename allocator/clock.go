package allocator

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Redis' clock is the only one that counts. When it steps back, what scripts set to "now" or a little later lies in the future.
// Most of that is harmless, or each script sees that it cannot be. Ports that were released, or rest, would be kept from everybody
// until the time is there again; they are put right once for all services.

// mending is the work that a step of the clock has left.
type mending struct {
	mu   sync.Mutex
	runs bool
	step time.Duration // the longest that was noticed since the work began; 0 if there is none left
}

// mendTries bounds how often the services are gone through, a second apart, until Redis has answered for all.
const mendTries = 60

// clockSlack is by how much a step may be longer than what was noticed, since pulses are a second apart, and a little more.
const clockSlack = 3 * time.Second

// clockSteppedBack puts right in the background what lies in the future since Redis' clock stepped back.
func (a *Allocator) clockSteppedBack(step time.Duration) {
	m := &a.mending
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step = max(m.step, step)
	if m.runs {
		return
	}
	m.runs = true
	go func() {
		for tries := 1; ; tries++ {
			m.mu.Lock()
			step := m.step
			if m.runs = step > 0 && tries <= mendTries; !m.runs {
				m.step = 0
				m.mu.Unlock()
				return
			}
			m.mu.Unlock()
			err := a.mendClock(context.Background(), step)
			m.mu.Lock()
			if err == nil && m.step == step {
				m.step = 0
			}
			m.mu.Unlock()
			if err != nil {
				time.Sleep(time.Second)
			}
		}
	}()
}

// mendClock goes through all services and puts right what lies in the future since Redis' clock stepped back by so much.
func (a *Allocator) mendClock(ctx context.Context, step time.Duration) error {
	failed := a.executor.Unlink(ctx, a.keys.Figures()) // which would stand for longer than it may
	pools, err := a.listedPools(ctx)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		services, err := a.serviceNames(ctx, pool)
		failed = errors.Join(failed, err)
		for some := range slices.Chunk(services, callsPerBatch) {
			failed = errors.Join(failed, a.mendServices(ctx, a.keys.Pool(pool), some, step+clockSlack))
		}
	}
	return failed
}

// mendServices runs the script for some services of a pool until it finds nothing more to put right.
func (a *Allocator) mendServices(ctx context.Context, pool keyspace.Pool, services []string, step time.Duration) (failed error) {
	type progress struct {
		service string
		passed  int64
		mended  int64 // since it began with the first port
	}
	var left []progress
	for _, service := range services {
		left = append(left, progress{service: service})
	}
	for perTrip, steps := heavyCallsPerBatch, 0; len(left) > 0 && steps < maxSteps; steps++ {
		var calls []executor.Call
		for _, at := range left {
			calls = append(calls, pool.Call(lua.MendClock, at.service, "", at.service, at.passed, step.Milliseconds(), a.opts.Quarantine.Milliseconds()))
		}
		var more []progress
		for i, r := range a.runAll(ctx, calls, perTrip) {
			parts, _ := r.Answer.([]any)
			if r.Err != nil || len(parts) != 2 {
				failed = errors.Join(failed, r.Err)
				continue
			}
			at := left[i]
			mended, _ := parts[0].(int64)
			at.passed, _ = parts[1].(int64)
			at.mended += mended
			if at.passed < 0 && at.mended > 0 {
				at.passed, at.mended = 0, 0 // once more, since what was passed over may have gone elsewhere meanwhile
			}
			if at.passed >= 0 {
				more = append(more, at)
			}
		}
		left, perTrip = more, 1 // those have many ports
	}
	return failed
}

// serviceNames lists the services of a pool.
func (a *Allocator) serviceNames(ctx context.Context, pool string) (names []string, err error) {
	for start := 0; ; {
		answer := a.runAll(ctx, []executor.Call{a.keys.Pool(pool).ListServices(start, servicesPerList)}, 1)[0]
		if answer.Err != nil {
			return names, answer.Err
		}
		listed, err := keyspace.ParseListed(answer.Answer)
		if err != nil {
			return names, err
		}
		names = append(names, listed.Names...)
		if start, err = strconv.Atoi(listed.Next); err != nil {
			return names, nil // there is no rest
		}
	}
}
