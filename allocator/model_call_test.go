package allocator

import (
	"errors"
	"strings"
	"time"

	"pgregory.net/rapid"

	"portmaster/lua"
)

// How the model's test makes calls on the store.

// do makes a call on the store. It tells the call the secrets that were drawn for it.
func (r *run) do(t *rapid.T, c *request) (got answer) {
	a := r.allocators[long]
	if c.ttl != 0 {
		a = r.allocators[c.ttl]
	}
	ctx := t.Context()
	var err error
	d := Definition{Name: c.service, Description: c.description, Start: c.start, End: c.end, Exclude: c.exclude, Cooldown: c.cooldown,
		Pick: c.pick, DefaultLease: optional(c.byDefault), MaxLease: optional(c.longest)}
	one := func(allocation Allocation) { got.Allocations = []Allocation{allocation} }
	var offer Offer
	var allocation Allocation
	switch c.act {
	case "create":
		got.Service, err = a.Create(ctx, c.caller, c.pool, d)
		got.Created = err == nil
	case "put":
		got.Service, got.Created, err = a.Define(ctx, c.caller, c.pool, d)
	case "change":
		got.Service, err = a.Change(ctx, c.caller, c.pool, c.service, c.applyTo)
	case "remove":
		err = a.Remove(ctx, c.caller, c.pool, c.service)
	case "offer", "claim":
		got, err = r.takeFrom(t, a, c)
	case "beat":
		got, err = r.beatFrom(t, a, c)
	case "look":
		got, err = r.lookFrom(t, a, c)
	case "leave":
		_ = a.leaveWaitlist(ctx, waitlistKey{c.pool, c.service}, c.ticket)
	case "accept":
		allocation, got.Created, err = a.Accept(ctx, c.caller, c.pool, c.service, c.secret, optional(c.lease))
		one(allocation)
	case "reject":
		got.Created, err = a.Reject(ctx, c.caller, c.pool, c.service, c.secret, c.inUse)
	case "renew":
		allocation, err = a.Renew(ctx, c.caller, c.pool, c.service, c.holder, c.secret, optional(c.lease))
		one(allocation)
	case "label":
		allocation, err = a.ChangeLabels(ctx, c.caller, c.pool, c.service, c.holder, c.secret, c.labelChanges())
		one(allocation)
	case "release":
		proof := Proof{Secret: c.secret, Fences: c.fences}
		if !c.inUse {
			err = a.Release(ctx, c.caller, c.pool, c.service, c.holder, proof)
		} else {
			got.Created, err = a.ReleaseInUse(ctx, c.caller, c.pool, c.service, c.holder, proof)
		}
	case "service":
		got.Service, err = a.Service(ctx, c.pool, c.service)
	case "services":
		got.Services, _, err = a.Services(ctx, c.pool, "", MaxPage)
	case "offers":
		got.Offers, _, err = a.Offers(ctx, c.pool, c.service, Filter{}, "", MaxPage)
	case "allocations":
		got.Allocations, _, err = a.Allocations(ctx, c.pool, c.service, Filter{}, "", MaxPage)
	case "map":
		got.Map, err = wholeMap(t.Context(), a, c.pool, c.service, 1+r.steps%4)
	case "freePorts":
		var free FreePorts
		free, err = a.FreePorts(ctx, c.pool, c.service, MaxPage)
		got.Free = free.Ports
	case "waitingCalls":
		for cursor := "0"; cursor != "" && err == nil; {
			var page []WaitingCall
			page, cursor, err = a.WaitingCalls(ctx, c.pool, c.service, cursor, 1+r.steps%3)
			got.Waiting = append(got.Waiting, page...)
		}
	case "readOffer":
		offer, err = a.OpenOffer(ctx, c.caller, c.pool, c.service, c.secret)
		got.Offers = []Offer{offer}
	case "readAllocation":
		allocation, err = a.Allocation(ctx, c.pool, c.service, c.holder)
		one(allocation)
	}
	got.Service.now = time.Time{}
	for i := range got.Services {
		got.Services[i].now = time.Time{}
	}
	if err != nil {
		return r.failed(t, *c, err)
	}
	return got
}

// failed is the answer of a call that did not succeed.
func (r *run) failed(t *rapid.T, c request, err error) answer {
	known, ok := errors.AsType[*Error](err)
	if !ok || strings.HasPrefix(known.Detail, "[") {
		r.differ(t, "%v: %v", c, err)
	}
	got := answer{Code: known.Code, RetryAfter: known.RetryAfter.Milliseconds()}
	for _, f := range known.Fields {
		got.Fields = append(got.Fields, f.Field)
	}
	return got
}

// takeFrom makes an offer or a claim.
func (r *run) takeFrom(t *rapid.T, a *Allocator, c *request) (got answer, err error) {
	if c.ticket != "" {
		return r.tryWaiting(t, a, c)
	}
	wants := make([]Request, len(c.wants))
	for i, w := range c.wants {
		if wants[i] = w.Request; !w.own {
			wants[i].Secret = ""
		}
	}
	if c.act == "offer" {
		got.Offers, got.Created, err = a.Offer(t.Context(), c.caller, c.pool, c.service, wants, Wait{})
	} else {
		got.Allocations, got.Created, err = a.Claim(t.Context(), c.caller, c.pool, c.service, wants, Wait{})
	}
	if err != nil {
		return got, err
	}
	for i := range c.wants {
		if c.act == "offer" {
			c.wants[i].Secret = got.Offers[i].Secret
		} else {
			c.wants[i].Secret = got.Allocations[i].Secret
		}
	}
	return got, nil
}

// tryWaiting makes one try of an offer or a claim that may wait, as acquireWaiting does.
func (r *run) tryWaiting(t *rapid.T, a *Allocator, c *request) (got answer, err error) {
	ctx := t.Context()
	call := acquisition{caller: c.caller, pool: c.pool, service: c.service, wait: Wait{Longest: time.Minute},
		script: lua.Offer, remember: a.opts.OfferTTL}
	if c.act == "claim" {
		call.script, call.remember = lua.Claim, remembered
	}
	for _, w := range c.wants {
		w.generated = !w.own
		call.requests = append(call.requests, w.Request)
	}
	generateSecrets(call.requests)
	for i, w := range call.requests {
		c.wants[i].Secret, c.wants[i].own = w.Secret, true // the call may be made again
	}
	answer, err := a.try(ctx, call, c.ticket, c.stay)
	if err != nil {
		a.leaveWaitlist(ctx, waitlistKey{c.pool, c.service}, c.ticket)
		return got, explain(err)
	}
	next, waits := waitingFor(answer)
	if got.Waits = waits; waits {
		got.RetryAfter = max(0, next.Milliseconds())
		return got, nil
	}
	all, err := grantsOf(answer, len(call.requests))
	for i, one := range all {
		got.Created = got.Created || one.created
		if c.act == "offer" {
			offer, err := parseOffer(one.record)
			offer.Secret = call.requests[i].Secret
			if got.Offers = append(got.Offers, offer); err != nil {
				return got, err
			}
			continue
		}
		allocation, err := parseAllocation(c.service, one.record)
		allocation.Secret = one.secretOf(call.requests[i])
		if got.Allocations = append(got.Allocations, allocation); err != nil {
			return got, err
		}
	}
	return got, err
}

// beatFrom keeps the places of a server, as beat does.
func (r *run) beatFrom(t *rapid.T, a *Allocator, c *request) (got answer, err error) {
	k := a.keys.Pool(c.pool)
	answer, err := a.write(t.Context(), k.Call(lua.Heartbeat, "", "", c.server))
	if parts, ok := answer.([]any); ok {
		got.Known = parts[0] == int64(1)
	}
	return got, err
}

// lookFrom looks at a waitlist, as lookAtWaitlists does.
func (r *run) lookFrom(t *rapid.T, a *Allocator, c *request) (got answer, err error) {
	k := a.keys.Pool(c.pool)
	args := []any{c.service}
	for _, ticket := range c.tickets {
		args = append(args, ticket)
	}
	answer, err := a.write(t.Context(), k.Call(lua.CheckWaitlist, c.service, "", args...))
	if err != nil {
		return got, err
	}
	n := newsOf(answer)
	return answerOf(n), nil
}

func answerOf(n news) answer {
	return answer{RetryAfter: n.next.Milliseconds(), Size: n.size, Tickets: n.tickets}
}
