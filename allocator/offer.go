package allocator

import (
	"context"
	"slices"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Offer is a port, or several in a row, that is kept for an instance name until it expires.
type Offer struct {
	Service string
	Name    string
	Port    int    // the first
	Count   int    // of consecutive ports, 1 or more
	Owner   string // whose it is; "": nobody's in particular
	Labels  Labels // "": none
	Secret  string // empty in a list
	Created time.Time
	Expires time.Time
	Lease   time.Duration // of the allocation that it would become; 0: until it is released
}

// Offer offers all that is requested of a service, in the same order, or nothing. Client-supplied secrets make the call safe to
// repeat: created is false if each had its offer already. If all ports are taken, it waits as wait says.
//
// It returns ErrInvalid, ErrServiceNotFound, ErrNameTaken, ErrPortTaken, ErrExhausted, or ErrQuotaExceeded; for a client-supplied
// secret also ErrOfferAccepted, ErrOfferRejected and ErrNotOwner. Its Fields say which request is at fault: "[2].name"
// is the name of the third.
func (a *Allocator) Offer(ctx context.Context, caller Caller, pool, service string, requests []Request, wait Wait) (
	offers []Offer, created bool, err error,
) {
	c := acquisition{
		caller: caller, pool: pool, service: service, requests: slices.Clone(requests), wait: wait,
		script: lua.Offer, remember: a.opts.OfferTTL,
	}
	grants, err := a.acquire(ctx, c)
	if err != nil {
		return nil, false, err
	}
	offers = make([]Offer, len(grants))
	for i, g := range grants {
		if offers[i], err = parseOffer(g.record); err != nil {
			return nil, false, err
		}
		offers[i].Secret = c.requests[i].Secret
		created = created || g.created
	}
	return offers, created, nil
}

// Accept accepts an offer, which makes it an allocation: with the lease given, or, if that is nil, with the one that the offer was
// requested with. created is false if it was accepted already. It returns ErrInvalid, ErrServiceNotFound, ErrOfferNotFound,
// ErrOfferRejected, or ErrNotOwner.
func (a *Allocator) Accept(ctx context.Context, caller Caller, pool, service, secret string, lease *time.Duration) (
	allocation Allocation, created bool, err error,
) {
	f := checkSecret(pool, service, secret)
	f.lease("lease", lease)
	if err := f.err(); err != nil {
		return Allocation{}, false, err
	}
	if err := a.epoch.HandsOut(ctx); err != nil { // its first call learns the highest fence
		return Allocation{}, false, translate(err)
	}
	answer := any(longWay)
	if lease == nil {
		answer, err = a.grant(ctx, pool, a.plainAccept(caller, pool, service, secret))
	}
	if err == nil && answer == longWay {
		k := a.keys.Pool(pool)
		ofPool, highest := a.epoch.Fences(pool)
		args := a.withEvents(caller, service, secret, ofPool, highest, valueOf(lease).Milliseconds())
		answer, err = a.runOwned(ctx, pool, caller, k.Call(lua.Accept, service, secret, args...),
			func(ctx context.Context, c executor.Call) (any, error) { return a.grant(ctx, pool, c) })
	}
	if err != nil {
		return Allocation{}, false, a.notGone(ctx, pool, err)
	}
	record, created := recordOf(answer)
	if allocation, err = parseAllocation(service, record); err == nil {
		a.epoch.Acknowledge(pool, allocation.Fence)
	}
	return allocation, created, err
}

// plainAccept returns the call of the script of few keys that serves most accepts: of an offer of one port without a lease.
func (a *Allocator) plainAccept(caller Caller, pool, service, secret string) executor.Call {
	k := a.keys.Pool(pool)
	ofPool, highest := a.epoch.Fences(pool)
	call := k.Call(lua.AcceptPlain, service, secret, a.withEvents(caller, service, secret, ofPool, highest)...)
	call.Many, call.OwnArgs = lua.AcceptMany, len(call.Args)
	k.AddOwner(&call, caller.Owner)
	return call
}

// Reject rejects an offer: its ports and its name are free again at once. If the port was found in use by another program, it is
// kept out for Options.Quarantine instead. Rejecting again succeeds; rejected is false then. It returns ErrInvalid,
// ErrServiceNotFound, ErrOfferNotFound, ErrOfferAccepted, or ErrNotOwner.
func (a *Allocator) Reject(ctx context.Context, caller Caller, pool, service, secret string, inUse bool) (rejected bool, err error) {
	if err := checkSecret(pool, service, secret).err(); err != nil {
		return false, err
	}
	answer, err := a.runOwned(ctx, pool, caller, a.rejectCall(caller, pool, service, secret, inUse), a.writeMany)
	return answer == int64(1), a.notGone(ctx, pool, err)
}

func (a *Allocator) rejectCall(caller Caller, pool, service, secret string, inUse bool) executor.Call {
	call := a.keys.Pool(pool).Call(lua.Reject, service, secret, a.withEvents(caller, service, secret, a.rests(inUse))...)
	call.Many, call.OwnArgs = lua.RejectMany, len(call.Args)
	return call
}

// OpenOffer reads the open offer of a secret. It returns ErrInvalid, ErrServiceNotFound, ErrOfferNotFound, ErrNotOwner,
// or, for a short while after the offer was accepted or rejected, ErrOfferAccepted or ErrOfferRejected.
func (a *Allocator) OpenOffer(ctx context.Context, caller Caller, pool, service, secret string) (Offer, error) {
	if err := checkSecret(pool, service, secret).err(); err != nil {
		return Offer{}, err
	}
	k := a.keys.Pool(pool)
	args := []any{service, secret}
	if caller.Owner != "" && !caller.IsOperator {
		args = append(args, caller.Owner)
	}
	answer, err := a.read(ctx, k.Call(lua.ReadOffer, service, secret, args...))
	if err != nil {
		return Offer{}, a.notGone(ctx, pool, err)
	}
	record, _ := recordOf(answer)
	offer, err := parseOffer(record)
	offer.Secret = secret
	return offer, err
}

// Offers lists those open offers of a service that are meant, without their secrets, in pages as Allocations does. It returns ErrInvalid
// or ErrServiceNotFound.
func (a *Allocator) Offers(ctx context.Context, pool, service string, of Filter, cursor string, limit int) (
	offers []Offer, next string, err error,
) {
	return list(ctx, a, pool, service, keyspace.Pool.Offers, of, cursor, limit, func(s Service, record record) (Offer, bool, error) {
		if record == leased {
			return Offer{}, false, nil
		}
		offer, err := parseOffer(record)
		return offer, offer.Expires.After(s.now), err
	})
}
