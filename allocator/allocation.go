package allocator

import (
	"context"
	"time"

	"portmaster/lua"
)

// Allocation is an accepted offer: a port that its holder keeps until it is released.
type Allocation struct {
	Service string
	Name    string
	Port    int
	Created time.Time
	Fence   int64 // grows with every allocation of the pool, so that it tells two holders of one port apart
}

// Allocation reads one allocation, by its port or by its holder's name. It returns ErrInvalid, ErrServiceNotFound, or
// ErrPortNotFound.
func (a *Allocator) Allocation(ctx context.Context, pool, service, holder string) (Allocation, error) {
	if err := checkHolder(pool, service, holder); err != nil {
		return Allocation{}, err
	}
	k := a.keys(pool)
	answer, err := a.door.read(ctx, k, lua.ReadAllocation,
		[]string{k.service(service), k.names(service), k.ports(service)}, service, holder)
	if err != nil {
		return Allocation{}, err
	}
	record, _ := recordOf(answer)
	return parseAllocation(service, record)
}

// Allocations lists the allocations of a service by port: those from cursor ("" for the first), limit of them at most.
// next is the cursor of the rest, "" where there is none. It returns ErrInvalid or ErrServiceNotFound.
func (a *Allocator) Allocations(ctx context.Context, pool, service, cursor string, limit int) (allocations []Allocation, next string, err error) {
	return list(ctx, a, pool, service, keys.ports, cursor, limit, func(_ Service, record record) (Allocation, bool, error) {
		allocation, err := parseAllocation(service, record)
		return allocation, err == nil, err
	})
}

// Release releases an allocation, given its port or its holder's name: both are free again at once. With fences it does so
// only where the allocation has one of them. It returns ErrInvalid, ErrServiceNotFound, ErrPortNotFound, or
// ErrPreconditionFailed.
func (a *Allocator) Release(ctx context.Context, pool, service, holder string, fences ...int64) error {
	if err := checkHolder(pool, service, holder); err != nil {
		return err
	}
	k := a.keys(pool)
	args := make([]any, 0, 2+len(fences))
	args = append(args, service, holder)
	for _, fence := range fences {
		args = append(args, fence)
	}
	_, err := a.door.change(ctx, k, lua.Release,
		[]string{k.service(service), k.free(service), k.names(service), k.ports(service)}, args...)
	return err
}

func checkHolder(pool, service, holder string) error {
	var f faults
	f.name("pool", pool)
	f.name("service", service)
	f.name("port", holder)
	return f.err()
}

func parseAllocation(service string, r record) (Allocation, error) {
	name, ok1 := r.text(`"name":"`)
	port, ok2 := r.number(`"port":`)
	created, ok3 := r.time(`"created":`)
	fence, ok4 := r.number(`"fence":`)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return Allocation{}, malformed("an allocation of", service)
	}
	return Allocation{Service: service, Name: name, Port: int(port), Created: created, Fence: fence}, nil
}
