package allocator

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// errChanged is the error of a definition of a service that is not as it was read.
var errChanged = errors.New("the service was changed meanwhile")

// maxChanges is how often a change is tried: each time that another call has changed the service meanwhile.
const maxChanges = 100

// changePause is half of the longest pause before a change is tried again; each further pause may be twice as long, up to 256 ms. Without
// pauses, each of many calls at once would be tried about as often as there are calls.
const changePause = time.Millisecond

// Change changes a part of the definition of a service: change gets the definition as it is, and says what is wrong with the change, or
// nil. It may be called several times: at first with a definition of all ports, to find what no service could be changed to, and each
// time that another call has changed the service meanwhile. Change returns ErrServiceNotFound, and what Define and change return.
func (a *Allocator) Change(ctx context.Context, caller Caller, pool, service string, change func(*Definition) error) (Service, error) {
	if err := a.checkChange(pool, service, change); err != nil {
		return Service{}, err
	}
	for try := range maxChanges {
		if try > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(changePause << min(try, 8))):
			}
		}
		s, err := a.Service(ctx, pool, service)
		if err != nil {
			return Service{}, err
		}
		d := s.definition()
		if err := change(&d); err != nil {
			return Service{}, err
		}
		changed, _, err := a.define(ctx, caller, pool, d, true, s.fields()...)
		if !errors.Is(err, errChanged) {
			return changed, err
		}
	}
	return Service{}, unavailable("the service is changed faster than a part of it can be", nil)
}

// checkChange says what is wrong with a change, whatever the service is: so a wrong one of a service that does not exist is called wrong.
func (a *Allocator) checkChange(pool, service string, change func(*Definition) error) error {
	f := checkService(pool, service)
	if err := f.err(); err != nil {
		return err
	}
	d := Definition{Name: service, Start: a.opts.PortMin, End: a.opts.PortMax}
	if err := change(&d); err != nil {
		return err
	}
	f.exclude(d.Exclude)
	d.Exclude = nil // how much it leaves depends on the ranges of the service
	if _, err := a.checkDefinition(pool, d); err != nil {
		others, _ := errors.AsType[*Error](err)
		f = append(f, others.Fields...)
	}
	return f.err()
}

// definition returns what defines the service.
func (s Service) definition() Definition {
	d := Definition{
		Name: s.Name, Description: s.Description, Start: s.Start, End: s.End, Ranges: s.Ranges, Cooldown: s.Cooldown, Pick: s.Pick,
		DefaultLease: given(s.DefaultLease), MaxLease: given(s.MaxLease),
	}
	if d.Ranges != nil {
		d.Start, d.End = 0, 0
	}
	return d
}

// fields returns what defines the service as Redis has it: names of fields, and their values.
func (s Service) fields() []any {
	return []any{
		"description", s.Description, "start", s.Start, "end", s.End, "ranges", textOf(s.Ranges), "cooldown", s.Cooldown.Milliseconds(),
		"pick", string(s.Pick), "lease_bounds", leaseBounds(s.DefaultLease, s.MaxLease),
	}
}
