package allocator

import (
	"context"
	"slices"
	"time"

	"portmaster/lua"
)

// Claim offers and accepts what is wanted of a service in one call. A secret of the caller's own makes the call safe to
// repeat, for as long as the allocation lives: created is false then. Where all is taken it waits in line, as Offer does.
// The answer has the secret.
//
// It returns ErrInvalid, ErrServiceNotFound, ErrNameTaken, ErrPortTaken, or ErrExhausted; for a secret of the caller's own
// also ErrOfferAccepted, where the allocation was released since, and ErrOfferRejected.
func (a *Allocator) Claim(ctx context.Context, pool, service string, want Want, wait time.Duration) (allocation Allocation, created bool, err error) {
	return first(a.claim(ctx, ask{pool: pool, service: service, wants: []Want{want}, wait: wait}))
}

// ClaimMany claims all that is wanted of a service, in the same order, or nothing. created is false where each was claimed
// already. Errors are those of Claim, and name the want that is at fault.
func (a *Allocator) ClaimMany(ctx context.Context, pool, service string, wants []Want, wait time.Duration) (allocations []Allocation, created bool, err error) {
	return a.claim(ctx, ask{pool: pool, service: service, wants: slices.Clone(wants), many: true, wait: wait})
}

func (a *Allocator) claim(ctx context.Context, ask ask) (allocations []Allocation, created bool, err error) {
	ask.giveBack = (*Allocator).giveBackAllocation
	all, err := a.take(ctx, ask, lua.Claim, remembered.Milliseconds())
	if err != nil {
		return nil, false, err
	}
	allocations = make([]Allocation, len(all))
	for i, t := range all {
		if allocations[i], err = parseAllocation(ask.service, t.record); err != nil {
			return nil, false, err
		}
		allocations[i].Secret = ask.wants[i].Secret
		created = created || t.created
	}
	a.epoch.fences.see(ask.pool, allocations...)
	return allocations, created, nil
}

// claimAny makes a claim the short way, if it is of any one port. The answer is longWay if it has to go the other.
func (a *Allocator) claimAny(ctx context.Context, k keys, ask ask, remember int64) (answer any, err error) {
	want := ask.wants[0]
	if len(ask.wants) > 1 || want.Port != 0 || want.Prefer != 0 || want.Count != 0 {
		return longWay, nil
	}
	if err := a.handsOut(ctx); err != nil {
		return nil, err
	}
	args := []any{ask.service, remember, want.Name, want.Secret, flag(!want.drawn), want.Lease.Milliseconds(),
		a.epoch.fences.seen(ask.pool), a.epoch.fences.highest()}
	return a.changeKnown(ctx, ask.pool, lua.ClaimAny, k.of(lua.ClaimAny, ask.service, want.Secret), args)
}

// giveBackAllocation releases what was claimed by a caller who is gone.
func (a *Allocator) giveBackAllocation(ctx context.Context, ask ask, want Want) {
	_ = a.Release(ctx, ask.pool, ask.service, want.Name, Proof{Secret: want.Secret})
}

// remembered is for how long the secret of a claim is known to be taken, whatever becomes of the allocation.
const remembered = time.Minute
