package allocator

import (
	"context"
	"fmt"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// settle puts a service in order: it frees ports whose rest is over, completes a change of its range, and takes out ports that drained.
func (a *Allocator) settle(ctx context.Context, pool keyspace.Pool, service string) error {
	for range maxSteps {
		answer, err := a.write(ctx, pool.Call(lua.Settle, service, "", a.withEvents(Caller{})...))
		if err != nil || answer == int64(1) {
			return err
		}
	}
	return unavailable("the service changes faster than its ports can be updated", nil)
}

// readSettled runs a script that reads a service or its ports, and answers 0 if the service is to be settled first.
func (a *Allocator) readSettled(ctx context.Context, pool, service string, call executor.Call) (any, error) {
	for range maxSteps {
		answer, err := a.read(ctx, call)
		if err != nil || answer != int64(0) {
			return answer, a.notGone(ctx, pool, err)
		}
		if err := a.settle(ctx, a.keys.Pool(pool), service); err != nil {
			return nil, err
		}
	}
	return nil, unavailable("the service is changed faster than it is read", nil)
}

// settleDraining settles another service, a range of which drains and is to be defined: what was held there may have ended since
// anyone looked. found is the answer of define.lua, settled the service that was settled before: if that is the one, ports of it are
// held still, and the error is ErrRangeOverlap. It returns the service.
func (a *Allocator) settleDraining(ctx context.Context, pool keyspace.Pool, settled string, found []any) (service string, err error) {
	service, _ = found[0].(string)
	if service == settled {
		return "", &Error{Code: CodeRangeOverlap,
			Detail: fmt.Sprintf("the range %s drains in %s, which has it until the ports held there are given back", found[1], service)}
	}
	return service, a.settle(ctx, pool, service)
}
