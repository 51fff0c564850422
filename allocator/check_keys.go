package allocator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Inconsistency is what CheckKeys found: keys of a service that contradict each other.
type Inconsistency struct {
	Pool     string `json:"pool"`
	Service  string `json:"service"`
	Code     string `json:"code"`     // what is wrong, such as held_and_free; see lua/README.md
	Entry    string `json:"entry"`    // the port, name, or ticket that it is about
	Detail   string `json:"detail"`   // one sentence for operators
	Repaired bool   `json:"repaired"` // it was wrong, and is right now
}

// portsPerCheck is how many ports one script of CheckKeys holds against each other: about a millisecond's work.
const portsPerCheck = 64

// CheckKeys holds all keys of the services of a pool against each other, and reports those that contradict each other. Each script
// looks at up to 64 ports, or about 250 entries, in one step, so servers may go on meanwhile. With repair, entries without a record are
// removed, and those that a holder's record lacks are put back. No record is changed, and where two claim a port or a name, nothing
// is. It returns ErrInvalid, ErrUnavailable, or ErrOutcomeUnknown: then call it again.
func (a *Allocator) CheckKeys(ctx context.Context, pool string, repair bool, report func(Inconsistency)) error {
	var f faults
	f.name("pool", pool)
	if err := f.err(); err != nil {
		return err
	}
	k := a.keys.Pool(pool)
	for from := 0; ; {
		answer, err := a.read(ctx, k.ListServices(from, 1000))
		if err != nil {
			return err
		}
		listed, err := keyspace.ParseListed(answer)
		if err != nil {
			return err
		}
		for _, service := range listed.Names {
			err := a.checkService(ctx, pool, service, repair, report)
			if err != nil && !errors.Is(err, ErrServiceNotFound) { // removed meanwhile
				return fmt.Errorf("service %s: %w", service, err)
			}
		}
		if listed.Next == "" {
			return nil
		}
		if from, err = strconv.Atoi(listed.Next); err != nil {
			return malformed("the list of", "services")
		}
	}
}

// entries are the keys of a service whose entries CheckKeys goes through, and the service itself.
var entries = []string{"service", "waitlist", "fresh", "names", "offers", "ports", "free", "leases", "resting", "labels", "last"}

func (a *Allocator) checkService(ctx context.Context, pool, service string, repair bool, report func(Inconsistency)) error {
	tell := func(findings any) error {
		list, _ := findings.([]any)
		for _, each := range list {
			var texts [4]string
			parts, _ := each.([]any)
			for i := range min(len(parts), len(texts)) {
				texts[i], _ = parts[i].(string)
			}
			if len(parts) != len(texts) {
				return malformed("a finding of", service)
			}
			report(Inconsistency{pool, service, texts[0], texts[1], texts[2], texts[3] == "1"})
		}
		return nil
	}
	for _, key := range entries {
		if err := a.checkEntries(ctx, pool, service, key, "", repair, tell); err != nil {
			return err
		}
	}
	s, err := a.Service(ctx, pool, service)
	if err != nil {
		return err
	}
	owners, drains := map[string]bool{}, drainsFound{}
	for _, r := range s.allRanges() {
		for first := r.Start; first <= r.End; first += portsPerCheck {
			if err := a.checkPorts(ctx, pool, service, first, min(first+portsPerCheck-1, r.End), repair, owners, &drains, tell); err != nil {
				return err
			}
		}
	}
	if found, isKnown := drains.of(s.draining); isKnown {
		parts, err := a.checkSome(ctx, pool, service, lua.CheckEntries, "", repair, "drains", found)
		if err != nil {
			return err
		}
		if err := tell(parts[1]); err != nil {
			return err
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(owners)) {
		if err := a.checkEntries(ctx, pool, service, "owned", owner, repair, tell); err != nil {
			return err
		}
	}
	return nil
}

// drainsFound is how many ports of the ranges that drain are in a key, and what the service said of them all the time: while
// that stays the same, so do these ports.
type drainsFound struct {
	ports int
	said  string // "" before the first
	isOld bool   // it said something else
}

// add adds what check_ports.lua found.
func (d *drainsFound) add(parts []any) {
	said, _ := parts[4].(string)
	if said == "" {
		return
	}
	there, _ := parts[3].(int64)
	d.isOld = d.isOld || d.said != "" && d.said != said
	d.said, d.ports = said, d.ports+int(there)
}

// of returns what check_entries.lua compares, if all ports of these ranges were looked at while the service said the same of them.
func (d *drainsFound) of(ranges []Range) (found string, isKnown bool) {
	_, looked, _ := strings.Cut(d.said, " ")
	return fmt.Sprintf("%d %s", d.ports, d.said), len(ranges) > 0 && !d.isOld && looked == textOf(ranges)
}

// checkPorts holds the keys against each other at some ports of a range. It adds the owners, and the ports that drain, that it finds to
// those that are known.
func (a *Allocator) checkPorts(ctx context.Context, pool, service string, first, last int, repair bool, owners map[string]bool,
	drains *drainsFound, tell func(any) error,
) error {
	parts, err := a.checkSome(ctx, pool, service, lua.CheckPorts, "", repair, first, last)
	if err != nil {
		return err
	}
	if err := tell(parts[0]); err != nil {
		return err
	}
	missing, err := a.checkOffers(ctx, pool, service, parts[1])
	if err != nil {
		return err
	}
	if err := tell(missing); err != nil {
		return err
	}
	if len(parts) < 5 {
		return malformed("a check of", service)
	}
	drains.add(parts)
	wrong, err := a.checkOwners(ctx, pool, service, parts[2], repair, owners)
	if err != nil {
		return err
	}
	return tell(wrong)
}

// checkEntries looks for entries of a key that stand for nothing: a key of the service, or that of an owner.
func (a *Allocator) checkEntries(ctx context.Context, pool, service, key, owner string, repair bool, tell func(any) error) error {
	for cursor := "0"; ; {
		parts, err := a.checkSome(ctx, pool, service, lua.CheckEntries, owner, repair, key, cursor)
		if err != nil {
			return err
		}
		if err := tell(parts[1]); err != nil {
			return err
		}
		if cursor, _ = parts[0].(string); cursor == "0" {
			return nil
		}
	}
}

// checkOwners holds ports, each with the first port of its block and its owner, against the keys of the owners, which it adds to
// those that are known.
func (a *Allocator) checkOwners(
	ctx context.Context, pool, service string, owned any, repair bool, owners map[string]bool,
) (findings any, err error) {
	args, _ := owned.([]any)
	if len(args) == 0 {
		return nil, nil
	}
	k := a.keys.Pool(pool)
	call := k.Call(lua.CheckOwners, service, "", append([]any{flag(repair)}, args...)...)
	for i := 2; i < len(args); i += 3 {
		owner, _ := args[i].(string)
		owners[owner] = true
		k.AddEach(&call, service, owner)
	}
	if repair {
		return a.write(ctx, call)
	}
	return a.read(ctx, call)
}

// checkSome runs a script of CheckKeys on a service that is in order, and with the key of an owner if that is not "": it answers two
// parts or more.
func (a *Allocator) checkSome(
	ctx context.Context, pool, service string, script *lua.Script, owner string, repair bool, args ...any,
) ([]any, error) {
	k := a.keys.Pool(pool)
	run := a.read
	if repair {
		run = a.write
	}
	for range maxSteps {
		call := k.Call(script, service, "", append(args, flag(repair))...)
		k.AddOwner(&call, owner)
		answer, err := run(ctx, call)
		if err != nil {
			return nil, err
		}
		if parts, _ := answer.([]any); len(parts) >= 2 {
			return parts, nil
		}
		if answer != int64(0) {
			return nil, malformed("a check of", service)
		}
		if err := a.settle(ctx, k, service); err != nil {
			return nil, err
		}
	}
	return nil, unavailable("the service is changed faster than it is checked", nil)
}

// checkOffers holds open offers, pairs of port and secret, against the keys of their secrets.
func (a *Allocator) checkOffers(ctx context.Context, pool, service string, offers any) (findings any, err error) {
	args, _ := offers.([]any)
	if len(args) == 0 {
		return nil, nil
	}
	k := a.keys.Pool(pool)
	call := k.Call(lua.CheckOffers, service, "", args...)
	for i := 1; i < len(args); i += 2 {
		secret, _ := args[i].(string)
		k.AddEach(&call, service, secret)
	}
	return a.read(ctx, call)
}
