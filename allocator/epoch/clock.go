package epoch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Redis' clock is the only one that counts. When it steps back, what scripts set to "now" or a little later lies in the future.
// Most of that is harmless, or each script sees that it cannot be right. Ports that were released, or that rest, would be kept from
// everybody until that time comes again; they are mended once for all services.

// mending is the work that steps of the clock have left.
type mending struct {
	mu   sync.Mutex
	runs bool
	step time.Duration // the longest step since the work began; 0 if nothing is left to mend
}

const (
	mendTries  = 60              // how often the services are gone through, a second apart, until Redis has answered for all
	clockSlack = 3 * time.Second // a step may be this much longer than what was noticed: pulses are a second or a little more apart

	// Redis runs a batch before it serves other clients, so these bound how long those wait: some 2 ms if an offer takes 10 us.
	callsPerBatch     = 64 // of scripts that take 30 us at most
	mendCallsPerBatch = 4  // of mend_clock.lua, while it may find little to do

	maxSteps = 10 + 2*65536/100 // how often a script is called that goes through the ports of a service, some 100 each time
)

// clockSteppedBack mends in the background what lies in the future since Redis' clock stepped back.
func (e *Epoch) clockSteppedBack(step time.Duration) {
	m := &e.mending
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step = max(m.step, step)
	if m.runs {
		return
	}
	m.runs = true
	go func() {
		for tries := 1; ; tries++ {
			step, isLeft := m.next(tries)
			if !isLeft {
				return
			}
			err := e.MendClock(context.Background(), step)
			m.ended(step, err)
			if err != nil {
				time.Sleep(time.Second)
			}
		}
	}()
}

// next returns the step to mend; isLeft is false if there is none, or it was tried too often, which ends the work.
func (m *mending) next(tries int) (step time.Duration, isLeft bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	step = m.step
	if m.runs = step > 0 && tries <= mendTries; !m.runs {
		m.step = 0
	}
	return step, m.runs
}

// ended notes that a step was mended, unless that failed, or the clock has made a longer step meanwhile.
func (m *mending) ended(step time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.step == step {
		m.step = 0
	}
}

// MendClock goes through all services and mends what lies in the future since Redis' clock stepped back by step.
func (e *Epoch) MendClock(ctx context.Context, step time.Duration) error {
	failed := e.executor.Unlink(ctx, e.keys.Figures()) // their TTL has become longer than it may be
	pools, err := e.executor.Members(ctx, e.keys.Pools())
	if err != nil {
		return err
	}
	for _, name := range pools {
		pool := e.keys.Pool(name)
		services, err := e.serviceNames(ctx, pool)
		failed = errors.Join(failed, err)
		for some := range slices.Chunk(services, callsPerBatch) {
			failed = errors.Join(failed, e.mendServices(ctx, pool, some, step+clockSlack))
		}
	}
	return failed
}

// mendServices runs the script for some services of a pool until it finds nothing more to mend.
func (e *Epoch) mendServices(ctx context.Context, pool keyspace.Pool, services []string, step time.Duration) (failed error) {
	type progress struct {
		service string
		passed  int64
		mended  int64 // since it began with the first port
	}
	var left []progress
	for _, service := range services {
		left = append(left, progress{service: service})
	}
	for perBatch, steps := mendCallsPerBatch, 0; len(left) > 0 && steps < maxSteps; steps++ {
		if err := e.Open(ctx); err != nil {
			return errors.Join(failed, err)
		}
		var calls []executor.Call
		for _, at := range left {
			calls = append(calls, pool.Call(lua.MendClock, at.service, "",
				at.service, at.passed, step.Milliseconds(), e.Options.Quarantine.Milliseconds()))
		}
		var more []progress
		for i, r := range e.executor.RunAll(ctx, calls, perBatch) {
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
				at.passed, at.mended = 0, 0 // once more, since ports that were passed may have moved meanwhile
			}
			if at.passed >= 0 {
				more = append(more, at)
			}
		}
		left, perBatch = more, 1 // those have many ports
	}
	return failed
}
