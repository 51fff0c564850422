package allocator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// acquisition is a call for ports: an offer or a claim of some requests, all or nothing.
type acquisition struct {
	caller        Caller
	pool, service string
	requests      []Request
	wait          Wait

	script   *lua.Script   // lua.Offer or lua.Claim
	remember time.Duration // how long the script remembers the secrets, in whole milliseconds
}

// grant is what a request got.
type grant struct {
	record  record
	created bool // it is new; else the call was repeated, or the name had it
}

// secretOf returns the secret of the request that got this; "" if it is of another call: the name had an allocation that will do.
func (g grant) secretOf(r Request) string {
	if its, _ := g.record.text(`"secret":"`); its != r.Secret {
		return ""
	}
	return r.Secret
}

// acquire has a script offer or claim what is requested: the plain one if that will do, else the one for all cases.
func (a *Allocator) acquire(ctx context.Context, c acquisition) (grants []grant, err error) {
	if err := a.checkAcquisition(c); err != nil {
		return nil, err
	}
	generateSecrets(c.requests)
	answer := any(longWay)
	if plain, isPlain := a.plainCall(c); isPlain {
		answer, err = a.grant(ctx, c.pool, plain)
	}
	switch {
	case err != nil || answer != longWay:
	case c.wait.Longest > 0:
		answer, err = a.acquireWaiting(ctx, c)
	default:
		answer, err = a.try(ctx, c, "", false)
	}
	if err != nil {
		return nil, explain(a.notGone(context.WithoutCancel(ctx), c.pool, err))
	}
	grants, err = grantsOf(answer, len(c.requests))
	for i, r := range c.requests[:len(grants)] {
		if r.generated && grants[i].secretOf(r) != "" {
			grants[i].created = true // although a call that waited may have repeated it
		}
	}
	if c.wait.Longest > 0 && err == nil {
		if cause := c.wait.givenUp(ctx); isGone(cause) {
			a.giveBack(context.WithoutCancel(ctx), c, grants)
			return nil, errGivenUp(cause)
		}
	}
	return grants, err
}

// plainCall returns the call of the script of few keys that serves most offers and claims: of one request for any port, which does
// not wait. That of offers knows no lease.
func (a *Allocator) plainCall(c acquisition) (call executor.Call, isPlain bool) {
	r := c.requests[0]
	if len(c.requests) > 1 || !r.isForAny() || r.Labels != "" || c.wait.Longest > 0 || c.script == lua.Offer && r.Lease != nil {
		return call, false
	}
	pool := a.keys.Pool(c.pool)
	if c.script == lua.Claim {
		ofPool, highest := a.epoch.Fences(c.pool)
		call = pool.Call(lua.ClaimAny, c.service, r.Secret, a.withEvents(c.caller, c.service, c.remember.Milliseconds(), r.Name, r.Secret,
			flag(!r.generated), valueOf(r.Lease).Milliseconds(), ofPool, highest)...)
		call.Many, call.OwnArgs = lua.ClaimMany, len(call.Args)
	} else {
		call = pool.Call(lua.OfferAny, c.service, r.Secret, c.service, c.remember.Milliseconds(), r.Name, r.Secret, r.plainOptions(false))
		call.Many, call.OwnArgs = lua.OfferMany, 3
	}
	pool.AddOwner(&call, c.caller.Owner, c.caller.Held)
	return call, true
}

// longWay is the answer of a plain script that has done nothing: the call needs the script for all cases.
const longWay = int64(0)

// What a script answers that is not done yet.
const (
	again       = int64(1) // it has joined ports in search of a block, and must be called again for the rest
	settleFirst = int64(2) // the service must be settled before
)

// try runs the script of a call until it has an answer. A call with a ticket has or gets a position on the waitlist, and keeps it if
// stay is set. Each time that the script asks for another call it has looked at some ports, so that no single script looks at many.
func (a *Allocator) try(ctx context.Context, c acquisition, ticket string, stay bool) (answer any, err error) {
	call := a.callOf(c, ticket, stay)
	for range maxSteps {
		answer, err = a.grant(ctx, c.pool, call)
		switch {
		case err != nil:
		case answer == again:
			continue
		case answer == settleFirst:
			if err = a.settle(ctx, a.keys.Pool(c.pool), c.service); err == nil {
				continue
			}
		}
		return answer, err
	}
	return nil, unavailable("ports come free faster than they can be joined to a block", nil)
}

// callOf returns the call of a script that offers or claims.
func (a *Allocator) callOf(c acquisition, ticket string, stay bool) executor.Call {
	k := a.keys.Pool(c.pool)
	args := slices.Grow(a.withEvents(c.caller, c.service, c.remember.Milliseconds(), ticket, flag(stay)), 4+3*len(c.requests))
	call := k.Call(c.script, c.service, "")
	for _, r := range c.requests {
		k.AddEach(&call, c.service, r.Secret)
		args = append(args, r.Name, r.Secret, r.options(c.wait.Longest > 0))
	}
	call.Args = args
	k.AddOwner(&call, c.caller.Owner, c.caller.Held)
	if c.script == lua.Claim {
		ofPool, highest := a.epoch.Fences(c.pool)
		call.Args = append(call.Args, ofPool, highest)
	}
	return call
}

// giveBack gives back what was just granted to a client that is gone. Ports requested with a client-supplied secret are kept: the
// client may already have retried, and been told of them.
func (a *Allocator) giveBack(ctx context.Context, c acquisition, grants []grant) {
	for i, r := range c.requests {
		switch {
		case !grants[i].created || !r.generated:
		case c.script == lua.Claim:
			_ = a.Release(ctx, c.caller, c.pool, c.service, r.Name, Proof{Secret: r.Secret})
		default:
			_, _ = a.Reject(ctx, c.caller, c.pool, c.service, r.Secret, false) // if that fails, the offer expires
		}
	}
}

// explain turns the error of a script about requests into one that names their fields: in front of each detail stands
// "[2].name ..."; several have | between them.
func explain(err error) error {
	failed, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	detail := failed.Detail
	if failed.Code == CodeInvalid && len(failed.Fields) == 1 {
		detail = failed.Fields[0].Field + " " + failed.Fields[0].Detail
	} else if !strings.HasPrefix(detail, "[") {
		return err
	}
	var fields []FieldError
	for fault := range strings.SplitSeq(detail, "|") {
		field, detail, _ := strings.Cut(fault, " ")
		fields = append(fields, FieldError{field, detail})
	}
	if failed.Code == CodeInvalid {
		return Invalid(fields...)
	}
	explained := *failed
	explained.Detail, explained.Fields = fields[0].Detail, fields
	return &explained
}

// grantsOf reads the answer to n requests; one stands by itself.
func grantsOf(answer any, n int) ([]grant, error) {
	items := []any{answer}
	if n > 1 {
		items, _ = answer.([]any)
	}
	if len(items) != n {
		return nil, malformed("the answer to", "many requests")
	}
	grants := make([]grant, n)
	for i, item := range items {
		grants[i].record, grants[i].created = recordOf(item)
	}
	return grants, nil
}
