package allocator

import (
	"context"
	"slices"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Allocation is an accepted offer: a port, or several in a row, that its holder keeps until it is released, or until its
// lease ends.
type Allocation struct {
	Service string
	Name    string
	Port    int    // the first
	Count   int    // of consecutive ports, 1 or more
	Owner   string // whose it is; "": nobody's in particular
	Labels  Labels // "": none
	Created time.Time
	Fence   int64     // grows with every allocation of the pool, so that it tells two holders of one port apart
	Expires time.Time // the end of its lease; zero if it has none
	Secret  string    // only in the answer to a claim
}

// Claim offers and accepts all that is requested of a service in one call, in the same order, or nothing. Client-supplied secrets
// make the call safe to repeat, for as long as the allocations live: created is false then. If all ports are taken, it waits as wait
// says. The answers have the secrets, but for existing allocations that a request takes: created is false if there is nothing else.
//
// It returns ErrInvalid, ErrServiceNotFound, ErrNameTaken, ErrPortTaken, ErrExhausted, or ErrQuotaExceeded; for a client-supplied
// secret also ErrOfferAccepted, if the allocation was released since, ErrOfferRejected, and ErrNotOwner: a claim accepts no open offer
// of another owner, whoever the caller is. Its Fields are those of Offer.
func (a *Allocator) Claim(ctx context.Context, caller Caller, pool, service string, requests []Request, wait Wait) (
	allocations []Allocation, created bool, err error,
) {
	c := acquisition{
		caller: caller, pool: pool, service: service, requests: slices.Clone(requests), wait: wait,
		script: lua.Claim, remember: remembered,
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
		allocations[i].Secret = g.secretOf(c.requests[i])
		created = created || g.created
		a.epoch.Acknowledge(pool, allocations[i].Fence)
	}
	return allocations, created, nil
}

// remembered is how long the secret of a claim is known to be taken, even if the allocation is released.
const remembered = time.Minute

// Allocation reads one allocation, by its port or by its holder's name. It returns ErrInvalid, ErrServiceNotFound, or
// ErrPortNotFound.
func (a *Allocator) Allocation(ctx context.Context, pool, service, holder string) (Allocation, error) {
	if err := checkHolder(pool, service, holder).err(); err != nil {
		return Allocation{}, err
	}
	k := a.keys.Pool(pool)
	answer, err := a.read(ctx, k.Call(lua.ReadAllocation, service, "", service, holder))
	if err != nil {
		return Allocation{}, a.notGone(ctx, pool, err)
	}
	record, _ := recordOf(answer)
	return parseAllocation(service, record)
}

// Allocations lists those allocations of a service that are meant, by port: at most limit of them, from cursor ("" for the first). next
// is the cursor of the rest, "" if there is none; a page may be shorter than limit, or empty, and have one. It returns ErrInvalid or
// ErrServiceNotFound.
func (a *Allocator) Allocations(ctx context.Context, pool, service string, of Filter, cursor string, limit int) (
	allocations []Allocation, next string, err error,
) {
	return list(ctx, a, pool, service, keyspace.Pool.Ports, of, cursor, limit, allocationOf)
}

// allocationOf reads the record of a port of a service. live is false if another port has the record of the block, or the lease is over.
func allocationOf(s Service, r record) (allocation Allocation, live bool, err error) {
	if r.ofBlock() {
		return Allocation{}, false, nil
	}
	allocation, err = parseAllocation(s.Name, r)
	return allocation, err == nil && (allocation.Expires.IsZero() || allocation.Expires.After(s.now)), err
}

// Renew starts the lease of an allocation again, for as long as before if lease is nil. holder is one of its ports or its holder's
// name. An allocation without a lease gets one. It returns ErrInvalid, ErrServiceNotFound, ErrPortNotFound, also if the lease ran
// out, ErrSecretMismatch, or ErrNotOwner.
func (a *Allocator) Renew(ctx context.Context, caller Caller, pool, service, holder, secret string, lease *time.Duration) (
	Allocation, error,
) {
	f := checkHolder(pool, service, holder)
	f.secret("secret", secret)
	f.lease("lease", lease)
	if err := f.err(); err != nil {
		return Allocation{}, err
	}
	answer, err := a.runOwned(ctx, pool, caller, a.renewCall(caller, pool, service, holder, secret, lease), a.writeMany)
	if err != nil {
		return Allocation{}, a.notGone(ctx, pool, err)
	}
	record, _ := recordOf(answer)
	return parseAllocation(service, record)
}

func (a *Allocator) renewCall(caller Caller, pool, service, holder, secret string, lease *time.Duration) executor.Call {
	call := a.keys.Pool(pool).Call(lua.Renew, service, "",
		a.withEvents(caller, service, holder, secret, valueOf(lease).Milliseconds(), caller.Owner)...)
	call.Many, call.OwnArgs = lua.RenewMany, len(call.Args)
	return call
}

// Proof says which allocation a release means, so that it does not end the one of the next holder.
type Proof struct {
	Secret string  // the secret of the allocation; "": any
	Fences []int64 // the allocation has one of these fences; none: any
}

// Release releases an allocation: its name is free again, and so are its ports when the service's cool-down is over. holder is one
// of its ports or its holder's name. If proof has a secret or fences, they must be those of the allocation; with the secret the call
// may be repeated for a minute. Without the secret, a caller with an owner only releases what that owner has, unless it is an
// operator. It returns ErrInvalid, ErrServiceNotFound, ErrPortNotFound, ErrSecretMismatch, ErrNotOwner, ErrPreconditionFailed, or
// ErrPreconditionRequired if a proof is needed.
func (a *Allocator) Release(ctx context.Context, caller Caller, pool, service, holder string, proof Proof) error {
	_, err := a.release(ctx, caller, pool, service, holder, proof, false)
	return err
}

// ReleaseInUse is Release by a caller that found the ports still in use, such as by what its command left behind: they are kept out for
// Options.Quarantine, and no shorter than for the cool-down. released is false if the call was repeated.
func (a *Allocator) ReleaseInUse(ctx context.Context, caller Caller, pool, service, holder string, proof Proof) (released bool, err error) {
	return a.release(ctx, caller, pool, service, holder, proof, true)
}

func (a *Allocator) release(ctx context.Context, caller Caller, pool, service, holder string, proof Proof, inUse bool) (bool, error) {
	f := checkHolder(pool, service, holder)
	if proof.Secret != "" {
		f.secret("Portmaster-Secret", proof.Secret)
	}
	if err := f.err(); err != nil {
		return false, err
	}
	if a.opts.ReleaseNeedsSecret && proof.Secret == "" && len(proof.Fences) == 0 {
		return false, &Error{Code: CodePreconditionRequired,
			Detail: "send the allocation's secret in Portmaster-Secret, or its ETag in If-Match"}
	}
	k := a.keys.Pool(pool)
	which := proof.which(holder)
	if proof.Secret == "" && !inUse {
		if answer, err := a.write(ctx, a.plainRelease(caller, pool, service, which)); err != nil || answer != longWay {
			return true, a.notGone(ctx, pool, err)
		}
	}
	args := append(a.withEvents(caller, service, proof.Secret, a.rests(inUse)), which...)
	answer, err := a.runOwned(ctx, pool, caller, k.Call(lua.Release, service, proof.Secret, args...), a.write)
	return answer == int64(1), a.notGone(ctx, pool, err)
}

// rests is what scripts are told of ports that are given back: for how many ms they are kept out if they are in use; "" if they are not.
func (a *Allocator) rests(inUse bool) any {
	if inUse {
		return a.opts.Quarantine.Milliseconds()
	}
	return ""
}

// which returns what scripts are told of the allocation that is meant: its port or name, and the fences of which it must have one; ""
// if any will do.
func (p Proof) which(holder string) []any {
	if len(p.Fences) == 0 {
		return []any{holder, ""}
	}
	which := []any{holder}
	for _, fence := range p.Fences {
		which = append(which, fence)
	}
	return which
}

// plainRelease returns the call of the script of few keys that serves most releases. Those with more than one fence run each by itself.
func (a *Allocator) plainRelease(caller Caller, pool, service string, which []any) executor.Call {
	k := a.keys.Pool(pool)
	call := k.Call(lua.ReleasePlain, service, "", a.withEvents(caller, which...)...)
	if len(which) == 2 {
		call.Many, call.OwnArgs = lua.ReleaseMany, len(call.Args)
	}
	k.AddOwner(&call, caller.Owner)
	return call
}
