package allocator

import (
	"context"
	"slices"
	"time"

	"portmaster/lua"
)

// Claim offers and accepts all that is requested of a service in one call, in the same order, or nothing. Client-supplied secrets
// make the call safe to repeat, for as long as the allocations live: created is false then. If all ports are taken it waits in line,
// as Offer does. The answers have the secrets.
//
// It returns ErrInvalid, ErrServiceNotFound, ErrNameTaken, ErrPortTaken, or ErrExhausted; for a client-supplied secret also
// ErrOfferAccepted, if the allocation was released since, and ErrOfferRejected. Its Fields are those of Offer.
func (a *Allocator) Claim(ctx context.Context, pool, service string, requests []Request, wait Wait) (allocations []Allocation, created bool, err error) {
	c := acquisition{
		pool: pool, service: service, requests: slices.Clone(requests), wait: wait,
		script: lua.Claim, remember: remembered.Milliseconds(), giveBack: (*Allocator).giveBackAllocation,
	}
	grants, err := a.acquire(ctx, c)
	if err != nil {
		return nil, false, err
	}
	allocations = make([]Allocation, len(grants))
	for i, g := range grants {
		if allocations[i], err = parseAllocation(service, g.record); err != nil {
			return nil, false, err
		}
		allocations[i].Secret = c.requests[i].Secret
		created = created || g.created
	}
	a.epoch.fences.see(pool, allocations...)
	return allocations, created, nil
}

// claimAny makes a claim the short way, if it is of any one port. The answer is longWay if it has to go the other.
func (a *Allocator) claimAny(ctx context.Context, c acquisition) (answer any, err error) {
	r := c.requests[0]
	if len(c.requests) > 1 || r.Port != 0 || r.Prefer != 0 || r.Count != 0 {
		return longWay, nil
	}
	k := a.keys.Pool(c.pool)
	return a.grantKnown(ctx, c.pool, k.Call(lua.ClaimAny, c.service, r.Secret, c.service, c.remember, r.Name, r.Secret,
		flag(!r.generated), r.Lease.Milliseconds(), a.epoch.fences.seen(c.pool), a.epoch.fences.highest()))
}

// giveBackAllocation releases what was claimed by a caller who is gone.
func (a *Allocator) giveBackAllocation(ctx context.Context, c acquisition, r Request) {
	_ = a.Release(ctx, c.pool, c.service, r.Name, Proof{Secret: r.Secret})
}

// remembered is for how long the secret of a claim is known to be taken, whatever becomes of the allocation.
const remembered = time.Minute
