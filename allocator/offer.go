package allocator

import (
	"context"
	"time"

	"github.com/google/uuid"

	"portmaster/lua"
)

// Offer is a port that is kept for an instance name until it expires.
type Offer struct {
	Service string
	Name    string
	Port    int
	Secret  string // empty in a list
	Created time.Time
	Expires time.Time
}

// Offer offers a free port of a service to an instance name. Where secret is empty it draws one; a secret of the caller's
// own makes the call safe to repeat: created is false where this secret already had this offer.
//
// It returns ErrInvalid, ErrServiceNotFound, ErrNameTaken, or ErrExhausted; for a secret of the caller's own also
// ErrOfferAccepted and ErrOfferRejected.
func (a *Allocator) Offer(ctx context.Context, pool, service, name, secret string) (offer Offer, created bool, err error) {
	own := secret != ""
	if !own {
		secret = uuid.NewString()
	}
	var f faults
	f.name("pool", pool)
	f.name("service", service)
	f.instance("name", name)
	f.secret(secret)
	if err := f.err(); err != nil {
		return Offer{}, false, err
	}
	if err := a.deployment.refusal(); err != nil {
		return Offer{}, false, err
	}
	k := a.keys(pool)
	answer, err := a.door.change(ctx, k, lua.Offer,
		[]string{k.service(service), k.free(service), k.names(service), k.offers(service), k.ports(service), k.offer(secret)},
		service, name, secret, a.opts.OfferTTL.Milliseconds(), flag(own))
	if err != nil {
		return Offer{}, false, err
	}
	record, created := recordOf(answer)
	offer, err = parseOffer(record)
	offer.Secret = secret
	return offer, created, err
}

// Accept accepts an offer, which makes it an allocation; created is false where it was accepted already. It returns
// ErrInvalid, ErrServiceNotFound, ErrOfferNotFound, or ErrOfferRejected.
func (a *Allocator) Accept(ctx context.Context, pool, service, secret string) (allocation Allocation, created bool, err error) {
	if err := checkSecret(pool, service, secret); err != nil {
		return Allocation{}, false, err
	}
	if err := a.deployment.refusal(); err != nil {
		return Allocation{}, false, err
	}
	k := a.keys(pool)
	answer, err := a.door.change(ctx, k, lua.Accept,
		[]string{k.service(service), k.free(service), k.offers(service), k.ports(service), k.fence(), k.offer(secret)},
		service, secret)
	if err != nil {
		return Allocation{}, false, err
	}
	record, created := recordOf(answer)
	allocation, err = parseAllocation(service, record)
	return allocation, created, err
}

// Reject rejects an offer: its port and its name are free again at once. Rejecting again succeeds. It returns ErrInvalid,
// ErrServiceNotFound, ErrOfferNotFound, or ErrOfferAccepted.
func (a *Allocator) Reject(ctx context.Context, pool, service, secret string) error {
	if err := checkSecret(pool, service, secret); err != nil {
		return err
	}
	k := a.keys(pool)
	_, err := a.door.change(ctx, k, lua.Reject,
		[]string{k.service(service), k.free(service), k.names(service), k.offers(service), k.ports(service), k.offer(secret)},
		service, secret)
	return err
}

// OpenOffer reads the offer that a secret opens. It returns ErrInvalid, ErrServiceNotFound, ErrOfferNotFound, or
// ErrOfferAccepted and ErrOfferRejected for a short while after.
func (a *Allocator) OpenOffer(ctx context.Context, pool, service, secret string) (Offer, error) {
	if err := checkSecret(pool, service, secret); err != nil {
		return Offer{}, err
	}
	k := a.keys(pool)
	answer, err := a.door.read(ctx, k, lua.ReadOffer,
		[]string{k.service(service), k.offers(service), k.ports(service), k.offer(secret)}, service, secret)
	if err != nil {
		return Offer{}, err
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
		offer, err := parseOffer(record)
		return offer, offer.Expires.After(s.now), err
	})
}

func checkSecret(pool, service, secret string) error {
	var f faults
	f.name("pool", pool)
	f.name("service", service)
	f.secret(secret)
	return f.err()
}

func parseOffer(r record) (Offer, error) {
	service, ok1 := r.text(`"service":"`)
	name, ok2 := r.text(`"name":"`)
	port, ok3 := r.number(`"port":`)
	created, ok4 := r.time(`"created":`)
	expires, ok5 := r.time(`"expires":`)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return Offer{}, malformed("an offer of", name)
	}
	return Offer{Service: service, Name: name, Port: int(port), Created: created, Expires: expires}, nil
}
