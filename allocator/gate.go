package allocator

import (
	"context"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// The calls to Redis. Each finds out first whether the state is one to work on; those that find that out go to the executor directly.

// call returns the call of a script in the slot of a pool.
func (k keys) call(script *lua.Script, keys []string, args ...any) executor.Call {
	return executor.Call{Slot: string(k), Script: script, Keys: keys, Args: args}
}

// write runs a script that may change something, once, and returns its answer when the replicas have what it rests on.
func (a *Allocator) write(ctx context.Context, c executor.Call) (any, error) {
	if err := a.open(ctx); err != nil {
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
