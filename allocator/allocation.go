package allocator

import (
	"context"
	"time"

	"portmaster/lua"
)

// Allocation is an accepted offer: a port, or several in a row, that its holder keeps until it is released, or until its
// lease ends.
type Allocation struct {
	Service string
	Name    string
	Port    int // the first
	Count   int // of consecutive ports, 1 or more
	Created time.Time
	Fence   int64     // grows with every allocation of the pool, so that it tells two holders of one port apart
	Expires time.Time // the end of its lease; zero where it has none
	Secret  string    // only where a claim made it
}

// Allocation reads one allocation, by its port or by its holder's name. It returns ErrInvalid, ErrServiceNotFound, or
// ErrPortNotFound.
func (a *Allocator) Allocation(ctx context.Context, pool, service, holder string) (Allocation, error) {
	if err := checkHolder(pool, service, holder).err(); err != nil {
		return Allocation{}, err
	}
	k := a.keys(pool)
	answer, err := a.read(ctx, k.call(lua.ReadAllocation, k.of(lua.ReadAllocation, service, ""), service, holder))
	if err != nil {
		return Allocation{}, a.notGone(ctx, pool, err)
	}
	record, _ := recordOf(answer)
	return parseAllocation(service, record)
}

// Allocations lists the allocations of a service by port: those from cursor ("" for the first), limit of them at most.
// next is the cursor of the rest, "" where there is none. It returns ErrInvalid or ErrServiceNotFound.
func (a *Allocator) Allocations(ctx context.Context, pool, service, cursor string, limit int) (allocations []Allocation, next string, err error) {
	return list(ctx, a, pool, service, keys.ports, cursor, limit, func(s Service, record record) (Allocation, bool, error) {
		if record.ofBlock() {
			return Allocation{}, false, nil // its first port has the record
		}
		allocation, err := parseAllocation(service, record)
		return allocation, err == nil && (allocation.Expires.IsZero() || allocation.Expires.After(s.now)), err
	})
}

// Renew lets the lease of an allocation, given one of its ports or its holder's name, begin anew now: for as long as
// before where lease is 0. One that has none gets one. It returns ErrInvalid, ErrServiceNotFound, ErrPortNotFound, also
// where the lease ran out, or ErrSecretMismatch.
func (a *Allocator) Renew(ctx context.Context, pool, service, holder, secret string, lease time.Duration) (Allocation, error) {
	f := checkHolder(pool, service, holder)
	f.secret("secret", secret)
	f.lease("lease", lease)
	if err := f.err(); err != nil {
		return Allocation{}, err
	}
	k := a.keys(pool)
	answer, err := a.write(ctx, k.call(lua.Renew, k.of(lua.Renew, service, ""), service, holder, secret, lease.Milliseconds()))
	if err != nil {
		return Allocation{}, a.notGone(ctx, pool, err)
	}
	record, _ := recordOf(answer)
	return parseAllocation(service, record)
}

// Proof says which allocation a release means, lest it ends that of the next holder.
type Proof struct {
	Secret string  // the allocation's; "" does not say
	Fences []int64 // it has one of them; none do not say
}

// Release releases an allocation, given one of its ports or its holder's name: its ports and the name are free again,
// once the service's cool-down is over. Where proof names a secret or fences it does so only where the allocation has
// them; with the secret the call may be repeated for a minute. It returns ErrInvalid, ErrServiceNotFound,
// ErrPortNotFound, ErrSecretMismatch, ErrPreconditionFailed, or ErrPreconditionRequired where there must be a proof.
func (a *Allocator) Release(ctx context.Context, pool, service, holder string, proof Proof) error {
	f := checkHolder(pool, service, holder)
	if proof.Secret != "" {
		f.secret("Portmaster-Secret", proof.Secret)
	}
	if err := f.err(); err != nil {
		return err
	}
	if a.opts.ReleaseNeedsSecret && proof.Secret == "" && len(proof.Fences) == 0 {
		return &Error{Code: CodePreconditionRequired, Detail: "send the allocation's secret in Portmaster-Secret, or its ETag in If-Match"}
	}
	k := a.keys(pool)
	args := make([]any, 3, 3+len(proof.Fences))
	args[0], args[1], args[2] = service, proof.Secret, holder
	for _, fence := range proof.Fences {
		args = append(args, fence)
	}
	if proof.Secret == "" {
		if answer, err := a.write(ctx, k.call(lua.ReleasePlain, k.of(lua.ReleasePlain, service, ""), args[2:]...)); err != nil || answer != longWay {
			return a.notGone(ctx, pool, err)
		}
	}
	_, err := a.write(ctx, k.call(lua.Release, k.of(lua.Release, service, proof.Secret), args...))
	return a.notGone(ctx, pool, err)
}
