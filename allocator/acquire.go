package allocator

import (
	"context"
	"errors"
	"strings"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// acquisition is a call for ports: an offer or a claim of some requests, all or nothing.
type acquisition struct {
	pool, service string
	requests      []Request
	wait          Wait

	script   *lua.Script
	remember int64 // for how many ms the script is to remember the secrets
	giveBack func(*Allocator, context.Context, acquisition, Request)
}

// grant is what a request got.
type grant struct {
	record  record
	created bool // it is new; else the call was repeated
}

// acquire lets a script offer or claim what is requested.
func (a *Allocator) acquire(ctx context.Context, c acquisition) (grants []grant, err error) {
	if err := a.checkAcquisition(c); err != nil {
		return nil, err
	}
	generateSecrets(c.requests)
	var answer any
	if c.wait.Longest == 0 {
		answer, err = a.acquireNow(ctx, c)
	} else {
		answer, err = a.acquireWaiting(ctx, c)
	}
	if err != nil {
		return nil, explain(a.notGone(context.WithoutCancel(ctx), c.pool, err))
	}
	grants, err = grantsOf(answer, len(c.requests))
	for i := range grants {
		grants[i].created = grants[i].created || c.requests[i].generated // it is new, though the call may have been made twice in line
	}
	if c.wait.Longest > 0 && err == nil {
		if cause := c.wait.givenUp(ctx); isGone(cause) {
			a.giveBack(context.WithoutCancel(ctx), c, grants)
			return nil, errGivenUp(cause)
		}
	}
	return grants, err
}

// acquireNow acquires ports for a call that does not wait: the short way, if that will do.
func (a *Allocator) acquireNow(ctx context.Context, c acquisition) (answer any, err error) {
	if c.script == lua.Offer {
		answer, err = a.offerAny(ctx, c)
	} else {
		answer, err = a.claimAny(ctx, c)
	}
	if err != nil || answer != longWay {
		return answer, err
	}
	return a.try(ctx, c, "", false)
}

// What a script answers that is not done yet.
const (
	again       = int64(1) // it has put ports in order in search of a block, and must be called once more for the rest
	settleFirst = int64(2) // the service has to be settled before
)

// try runs the script of a call until it has an answer. With a ticket the call has, or gets, its position in line, and keeps it if it is
// to stay. Each time that the script asks for another call it has looked at some ports, each of them once for each time that they
// were given back, so that no single script looks at more.
func (a *Allocator) try(ctx context.Context, c acquisition, ticket string, stay bool) (answer any, err error) {
	call := a.callOf(c, ticket, stay)
	for range maxSteps {
		answer, err = a.grantKnown(ctx, c.pool, call)
		switch {
		case err != nil:
		case answer == again:
			continue
		case answer == settleFirst:
			if err = a.settle(ctx, a.keys(c.pool), c.service); err == nil {
				continue
			}
		}
		return answer, err
	}
	return nil, unavailable("ports come free faster than they can be joined to a block", nil)
}

// callOf returns the call of a script that offers or claims.
func (a *Allocator) callOf(c acquisition, ticket string, stay bool) executor.Call {
	k := a.keys(c.pool)
	keys := k.of(c.script, c.service, "")
	args := make([]any, 4, 6+3*len(c.requests))
	args[0], args[1], args[2], args[3] = c.service, c.remember, ticket, flag(stay)
	for _, r := range c.requests {
		keys = k.eachOf(c.script, keys, c.service, r.Secret)
		args = append(args, r.Name, r.Secret, r.options(c.wait.Longest > 0))
	}
	if c.script == lua.Claim {
		args = append(args, a.epoch.fences.seen(c.pool), a.epoch.fences.highest())
	}
	return k.call(c.script, keys, args...)
}

// giveBackAll gives back what a call may have got of which no answer came.
func (a *Allocator) giveBackAll(ctx context.Context, c acquisition) {
	grants := make([]grant, len(c.requests))
	for i := range grants {
		grants[i].created = true
	}
	a.giveBack(ctx, c, grants)
}

// giveBack gives back what was just granted to a caller who is gone. Ports requested with a client-supplied secret are kept: the
// client may already have retried, and been told.
func (a *Allocator) giveBack(ctx context.Context, c acquisition, grants []grant) {
	for i, g := range grants {
		if g.created && c.requests[i].generated {
			c.giveBack(a, ctx, c, c.requests[i])
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
