package allocator

import (
	"context"
	"slices"
	"time"

	"portmaster/lua"
)

// Offer is a port, or several in a row, that is kept for an instance name until it expires.
type Offer struct {
	Service string
	Name    string
	Port    int    // the first
	Count   int    // of consecutive ports, 1 or more
	Secret  string // empty in a list
	Created time.Time
	Expires time.Time
	Lease   time.Duration // of the allocation that it would become; 0 is for ever
}

// Offer offers what is wanted of a service. A secret of the caller's own makes the call safe to repeat: created is false
// where this secret already had this offer. Where all is taken it waits in line for so long, up to Options.MaxWait; see
// line.
//
// It returns ErrInvalid, ErrServiceNotFound, ErrNameTaken, ErrPortTaken, or ErrExhausted; for a secret of the caller's own
// also ErrOfferAccepted and ErrOfferRejected.
func (a *Allocator) Offer(ctx context.Context, pool, service string, want Want, wait time.Duration) (offer Offer, created bool, err error) {
	return first(a.offer(ctx, ask{pool: pool, service: service, wants: []Want{want}, wait: wait}))
}

// OfferMany offers all that is wanted of a service, in the same order, or nothing. created is false where each was offered
// already. Errors are those of Offer, and name the want that is at fault.
func (a *Allocator) OfferMany(ctx context.Context, pool, service string, wants []Want, wait time.Duration) (offers []Offer, created bool, err error) {
	return a.offer(ctx, ask{pool: pool, service: service, wants: slices.Clone(wants), many: true, wait: wait})
}

func (a *Allocator) offer(ctx context.Context, ask ask) (offers []Offer, created bool, err error) {
	ask.giveBack = (*Allocator).giveBackOffer
	all, err := a.take(ctx, ask, lua.Offer, a.opts.OfferTTL.Milliseconds())
	if err != nil {
		return nil, false, err
	}
	offers = make([]Offer, len(all))
	for i, t := range all {
		if offers[i], err = parseOffer(t.record); err != nil {
			return nil, false, err
		}
		offers[i].Secret = ask.wants[i].Secret
		created = created || t.created
	}
	return offers, created, nil
}

// offerAny makes an offer the short way, where it is of any one port. The answer is longWay where it has to go the other.
func (a *Allocator) offerAny(ctx context.Context, k keys, ask ask, ttl int64) (answer any, err error) {
	want := ask.wants[0]
	known := want.options(false)
	if len(ask.wants) > 1 || known != "" && known != "1" {
		return longWay, nil
	}
	if err := a.handsOut(ctx); err != nil {
		return nil, err
	}
	return a.door.change(ctx, k, lua.OfferAny, k.of(lua.OfferAny, ask.service, want.Secret), ask.service, ttl, want.Name, want.Secret, known)
}

// giveBackOffer rejects what was offered to a caller who is gone. Where it fails, the offer expires by itself.
func (a *Allocator) giveBackOffer(ctx context.Context, ask ask, want Want) {
	_, _ = a.Reject(ctx, ask.pool, ask.service, want.Secret, false)
}

// Accept accepts an offer, which makes it an allocation: for as long as lease says, where that is not 0, and else for as
// long as was wanted of the offer. created is false where it was accepted already. It returns ErrInvalid,
// ErrServiceNotFound, ErrOfferNotFound, or ErrOfferRejected.
func (a *Allocator) Accept(ctx context.Context, pool, service, secret string, lease time.Duration) (allocation Allocation, created bool, err error) {
	f := checkSecret(pool, service, secret)
	f.lease("lease", lease)
	if err := f.err(); err != nil {
		return Allocation{}, false, err
	}
	if err := a.handsOut(ctx); err != nil {
		return Allocation{}, false, err
	}
	k := a.keys(pool)
	args := []any{service, secret, a.epoch.fences.seen(pool), a.epoch.fences.highest(), lease.Milliseconds()}
	answer := any(longWay)
	if lease == 0 {
		answer, err = a.changeKnown(ctx, pool, lua.AcceptPlain, k.of(lua.AcceptPlain, service, secret), args[:4])
	}
	if err == nil && answer == longWay {
		answer, err = a.changeKnown(ctx, pool, lua.Accept, k.of(lua.Accept, service, secret), args)
	}
	if err != nil {
		return Allocation{}, false, a.notGone(ctx, pool, err)
	}
	record, created := recordOf(answer)
	if allocation, err = parseAllocation(service, record); err == nil {
		a.epoch.fences.see(pool, allocation)
	}
	return allocation, created, err
}

// Reject rejects an offer: its ports and its name are free again at once. Where the port was found in use by somebody
// else, it is kept out for Options.Quarantine instead. Rejecting again succeeds; rejected is false then. It returns
// ErrInvalid, ErrServiceNotFound, ErrOfferNotFound, or ErrOfferAccepted.
func (a *Allocator) Reject(ctx context.Context, pool, service, secret string, inUse bool) (rejected bool, err error) {
	if err := checkSecret(pool, service, secret).err(); err != nil {
		return false, err
	}
	var quarantine time.Duration
	if inUse {
		quarantine = a.opts.Quarantine
	}
	k := a.keys(pool)
	answer, err := a.door.change(ctx, k, lua.Reject, k.of(lua.Reject, service, secret), service, secret, quarantine.Milliseconds())
	return answer == int64(1), a.notGone(ctx, pool, err)
}

// OpenOffer reads the offer that a secret opens. It returns ErrInvalid, ErrServiceNotFound, ErrOfferNotFound, or
// ErrOfferAccepted and ErrOfferRejected for a short while after.
func (a *Allocator) OpenOffer(ctx context.Context, pool, service, secret string) (Offer, error) {
	if err := checkSecret(pool, service, secret).err(); err != nil {
		return Offer{}, err
	}
	k := a.keys(pool)
	answer, err := a.door.read(ctx, k, lua.ReadOffer,
		k.of(lua.ReadOffer, service, secret), service, secret)
	if err != nil {
		return Offer{}, a.notGone(ctx, pool, err)
	}
	record, _ := recordOf(answer)
	offer, err := parseOffer(record)
	offer.Secret = secret
	return offer, err
}

// Offers lists the open offers of a service by port, without their secrets: those from cursor ("" for the first), limit
// of them at most. next is the cursor of the rest, "" where there is none. It returns ErrInvalid or ErrServiceNotFound.
func (a *Allocator) Offers(ctx context.Context, pool, service, cursor string, limit int) (offers []Offer, next string, err error) {
	return list(ctx, a, pool, service, keys.offers, cursor, limit, func(s Service, record record) (Offer, bool, error) {
		if record == leased {
			return Offer{}, false, nil
		}
		offer, err := parseOffer(record)
		return offer, offer.Expires.After(s.now), err
	})
}

// longWay is the answer of a script that has done nothing: it needs more keys than most calls have to send.
const longWay = int64(0)

func checkSecret(pool, service, secret string) (f faults) {
	f.name("pool", pool)
	f.name("service", service)
	f.secret("secret", secret)
	return f
}
