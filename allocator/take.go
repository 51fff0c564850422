package allocator

import (
	"context"
	"errors"
	"strings"
	"time"

	"portmaster/lua"
)

// ask is a call for ports: an offer or a claim, of one want or of a list.
type ask struct {
	pool, service string
	wants         []Want
	many          bool          // it came as a list, be it of one
	wait          time.Duration // how long it may wait in line

	giveBack func(*Allocator, context.Context, ask, Want) // gives back what was taken for a caller who is gone
}

// taken is what a want got.
type taken struct {
	record  record
	created bool // it is new; else the call was repeated
}

// take lets a script offer or claim what is asked for, all or nothing. The script is told for how many milliseconds to
// remember the secrets.
func (a *Allocator) take(ctx context.Context, ask ask, script *lua.Script, remember int64) (all []taken, err error) {
	if err := a.checkAsk(ask); err != nil {
		return nil, err
	}
	draw(ask.wants)
	k := a.keys(ask.pool)
	keys := k.of(script, ask.service, "")
	args := make([]any, 4, 6+3*len(ask.wants))
	args[0], args[1], args[2], args[3] = ask.service, remember, "", flag(false)
	for _, w := range ask.wants {
		keys = k.eachOf(script, keys, ask.service, w.Secret)
		args = append(args, w.Name, w.Secret, w.options(ask.wait > 0))
	}
	if script == lua.Claim {
		args = append(args, a.epoch.fences.seen(ask.pool), a.epoch.fences.highest())
	}
	var answer any
	if ask.wait == 0 {
		if script == lua.Offer {
			answer, err = a.offerAny(ctx, k, ask, remember)
		} else {
			answer, err = a.claimAny(ctx, k, ask, remember)
		}
		if answer == longWay && err == nil {
			answer, err = a.takeOnce(ctx, ask.pool, ask.service, script, keys, args)
		}
	} else {
		answer, err = a.waitInLine(ctx, ask, func(ctx context.Context, ticket string, stay bool) (any, error) {
			args[2], args[3] = ticket, flag(stay)
			return a.takeOnce(ctx, ask.pool, ask.service, script, keys, args)
		})
	}
	if err != nil {
		return nil, ask.explain(a.notGone(context.WithoutCancel(ctx), ask.pool, err))
	}
	all, err = takenOf(answer, len(ask.wants))
	for i := range all {
		all[i].created = all[i].created || ask.wants[i].drawn // it is new, though the call may have been made twice in line
	}
	if ask.wait > 0 && err == nil && isGone(ctx) {
		a.giveBack(context.WithoutCancel(ctx), ask, all)
		return nil, givenUp(ctx)
	}
	return all, err
}

// giveBackAll gives back what a call may have got of which no answer came.
func (a *Allocator) giveBackAll(ctx context.Context, ask ask) {
	all := make([]taken, len(ask.wants))
	for i := range all {
		all[i].created = true
	}
	a.giveBack(ctx, ask, all)
}

// giveBack gives back what was just taken for a caller who is gone. What has a secret of the caller's own stays, as it does
// where an answer gets lost: the caller may be back with it already, and have been told.
func (a *Allocator) giveBack(ctx context.Context, ask ask, all []taken) {
	for i, t := range all {
		if t.created && ask.wants[i].drawn {
			ask.giveBack(a, ctx, ask, ask.wants[i])
		}
	}
}

// What a script answers that is not done yet.
const (
	again       = int64(1) // it has put ports in order in search of a block, and must be called once more for the rest
	settleFirst = int64(2) // the service has to be settled before
)

// takeOnce runs a script until it has an answer. Each time that it asks for another call it has looked at some ports, each of
// them once for each time that they were given back, so that no single script looks at more.
func (a *Allocator) takeOnce(ctx context.Context, pool string, service string, script *lua.Script, keys []string, args []any) (answer any, err error) {
	for range maxSteps {
		if err := a.handsOut(ctx); err != nil { // it may be lost while a call waits in line
			return nil, err
		}
		answer, err = a.changeKnown(ctx, pool, script, keys, args)
		switch {
		case err != nil:
		case answer == again:
			continue
		case answer == settleFirst:
			if err = a.settle(ctx, a.keys(pool), service); err == nil {
				continue
			}
		}
		return answer, err
	}
	return nil, unavailable("ports are given back faster than they are gathered for a block", nil)
}

func (a *Allocator) checkAsk(ask ask) error {
	var f faults
	f.name("pool", ask.pool)
	f.name("service", ask.service)
	f.wants(ask.wants, ask.many, a.opts.MaxPorts)
	f.wait(ask.wait, a.opts.MaxWait, ask.wants)
	return f.err()
}

// explain turns the error of a script about wants into one that names their fields: in front of each detail stands
// "[2].name ...", which is "[2].name" where there is a list of wants, and else "name"; several have | between them.
func (ask ask) explain(err error) error {
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
		if !ask.many {
			field = strings.TrimPrefix(field, "[0].")
		}
		fields = append(fields, FieldError{field, detail})
	}
	if failed.Code == CodeInvalid {
		return Invalid(fields...)
	}
	explained := *failed
	explained.Detail = fields[0].Detail
	if ask.many {
		explained.Fields = fields
	}
	return &explained
}

// takenOf reads the answer to n wants; one stands by itself.
func takenOf(answer any, n int) ([]taken, error) {
	items := []any{answer}
	if n > 1 {
		items, _ = answer.([]any)
	}
	if len(items) != n {
		return nil, malformed("the answer to", "many wants")
	}
	all := make([]taken, n)
	for i, item := range items {
		all[i].record, all[i].created = recordOf(item)
	}
	return all, nil
}

// first is the answer to the one want of a call.
func first[T any](all []T, created bool, err error) (one T, _ bool, _ error) {
	if err != nil {
		return one, false, err
	}
	return all[0], created, nil
}
