package allocator

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// releasesAtOnce is how many allocations of a page are released at a time.
const releasesAtOnce = 64

// ReleaseMatching releases all allocations of a service that are meant, page by page, each by its fence, and returns them. The filter
// must not be empty. Open offers stay: they end by themselves. A caller with an owner that is no operator releases what it may release
// one by one: what others own stays. If all of an owner is meant, entries of the owner's key that stand for nothing are dropped, so that
// its quota is right. A call that fails has released those that it returns, and may be repeated. It returns ErrInvalid,
// ErrServiceNotFound, ErrNotOwner if the filter names another owner than the caller, who is no operator, and what Release does.
func (a *Allocator) ReleaseMatching(ctx context.Context, caller Caller, pool, service string, of Filter) (released []Allocation, err error) {
	f := checkService(pool, service)
	f.filter(of)
	if of.isAll() {
		f.add("query", "must have owner, name, name_prefix or label")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	mustOwn := caller.Owner != "" && !caller.IsOperator
	if mustOwn && of.Owner != "" && caller.Owner != of.Owner {
		return nil, &Error{Code: CodeNotOwner, Detail: "the ports of " + of.Owner + " belong to another owner"}
	}
	for cursor := ""; ; {
		page, next, err := a.Allocations(ctx, pool, service, of, cursor, MaxPage)
		if err != nil {
			return released, err
		}
		if mustOwn {
			page = slices.DeleteFunc(page, func(of Allocation) bool { return of.Owner != "" && of.Owner != caller.Owner })
		}
		some, err := a.releaseEach(ctx, caller.RequestID, pool, page)
		released = append(released, some...)
		if err != nil {
			return released, err
		}
		if next != "" {
			cursor = next
			continue
		}
		if of == (Filter{Owner: of.Owner}) {
			err = a.dropEntries(ctx, pool, service, of.Owner)
		}
		return released, err
	}
}

// dropEntries drops ports of a service from the key of an owner for which there is no record. There are none unless the key was
// changed by hand, or the ports were released by a server that knows no owners.
func (a *Allocator) dropEntries(ctx context.Context, pool, service, owner string) error {
	err := a.checkEntries(ctx, pool, service, "owned", owner, true, func(any) error { return nil })
	if errors.Is(err, ErrServiceNotFound) { // removed meanwhile
		return nil
	}
	return err
}

// releaseEach releases allocations that still are what they were, and returns those.
func (a *Allocator) releaseEach(ctx context.Context, requestID, pool string, allocations []Allocation) (released []Allocation, err error) {
	done, failed := make([]bool, len(allocations)), make([]error, len(allocations))
	work, all := make(chan int), sync.WaitGroup{}
	for range min(releasesAtOnce, len(allocations)) {
		all.Go(func() {
			for i := range work {
				of := allocations[i]
				by := Caller{Owner: of.Owner, RequestID: requestID}
				switch err := a.Release(ctx, by, pool, of.Service, strconv.Itoa(of.Port), Proof{Fences: []int64{of.Fence}}); {
				case err == nil:
					done[i] = true
				case !errors.Is(err, ErrPortNotFound) && !errors.Is(err, ErrPreconditionFailed) && !errors.Is(err, ErrNotOwner):
					failed[i] = err
				}
			}
		})
	}
	for i := range allocations {
		work <- i
	}
	close(work)
	all.Wait()
	for i, of := range allocations {
		if done[i] {
			released = append(released, of)
		}
	}
	return released, errors.Join(failed...)
}

// OwnerKey names an owner in a pool.
type OwnerKey struct{ Pool, Owner string }

// CountHeld counts the ports that owners hold, each in a pool, open offers included; -1 for one that could not be read.
func (a *Allocator) CountHeld(ctx context.Context, owners []OwnerKey) []int {
	calls, held := make([]executor.Call, len(owners)), make([]int, len(owners))
	for i, o := range owners {
		k := a.keys.Pool(o.Pool)
		calls[i] = k.Call(lua.CountHeld, "", "")
		k.AddOwner(&calls[i], o.Owner)
	}
	for i, r := range a.runAll(ctx, calls, callsPerBatch) {
		held[i] = -1
		if n, err := toInt(r.Answer); r.Err == nil && err == nil {
			held[i] = int(n)
		}
	}
	return held
}
