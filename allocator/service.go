package allocator

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// Service is a name for ports of a pool: of one range, or of several.
type Service struct {
	Name        string
	Description string
	Start, End  int           // the range, both ends included; if there are several, the first and the last of all ports
	Ranges      []Range       // if there are several, in their order
	Cooldown    time.Duration // how long a port is not offered again after it was released, or its lease ended
	Pick        Pick          // PickByName, or PickRested
	Created     time.Time
	Ports       PortCounts
	Waiting     int      // how many calls wait for a port
	Warnings    []string // what an operator should know about the ranges

	DefaultLease time.Duration // of what asks for none; 0: MaxLease, if there is one, else none
	MaxLease     time.Duration // 0: that of the package

	now      time.Time // Redis's, when this was read
	draining []Range   // those that it had, while ports of them are held
}

// ranges returns the ranges of the service, also if there is one.
func (s Service) ranges() []Range {
	if s.Ranges != nil {
		return s.Ranges
	}
	return []Range{{s.Start, s.End}}
}

// allRanges returns the ranges of the service, and those that drain, in their order.
func (s Service) allRanges() []Range { return sorted(append(slices.Clone(s.ranges()), s.draining...)) }

// PortCounts counts the ports of a service by their state. Total is the sum of Free, Offered, Allocated, and Cooling. Draining says how
// many of those that are offered or allocated are outside of the ranges, and leave the service when they are given back.
type PortCounts struct{ Total, Free, Offered, Allocated, Cooling, Draining int }

// Definition defines a service.
type Definition struct {
	Name        string
	Description string
	Start, End  int
	Ranges      []Range       // in place of Start and End: 1 to MaxRanges, in any order, none of which overlaps another
	Exclude     []Range       // ports of these that the service does not have; others are ignored. At most 1,000
	Cooldown    time.Duration // 0 to MaxLease, in whole milliseconds
	Pick        Pick          // PickByName, or PickRested
	Drain       bool          // ports that leave the ranges while they are held stay until they are given back

	// DefaultLease is the lease of a request that has none, and MaxLease the longest: from now on, also of a renewal. Without a
	// DefaultLease, a request that has none gets MaxLease. Both are MinLease to MaxLease, in whole milliseconds; nil: none.
	DefaultLease, MaxLease *time.Duration
}

// Linux picks its own ephemeral ports from this range by default (net.ipv4.ip_local_port_range).
const (
	ephemeralMin = 32768
	ephemeralMax = 60999
)

// Create defines a new service. It returns ErrInvalid, ErrServiceExists, ErrLimitReached, or ErrRangeOverlap.
func (a *Allocator) Create(ctx context.Context, caller Caller, pool string, d Definition) (Service, error) {
	service, _, err := a.define(ctx, caller, pool, d, false)
	return service, err
}

// Define defines a service, or changes the ranges and description of the one of that name; created says which it was. It
// returns ErrInvalid, ErrLimitReached, ErrRangeOverlap, or ErrRangeInUse if a port held or on offer would fall outside, unless
// d.Drain is set, or if more than 64 ranges would drain: then nothing is changed.
func (a *Allocator) Define(ctx context.Context, caller Caller, pool string, d Definition) (service Service, created bool, err error) {
	return a.define(ctx, caller, pool, d, true)
}

// define defines a service. If it must be as another call has read it, was is what that has read.
func (a *Allocator) define(ctx context.Context, caller Caller, pool string, d Definition, mayExist bool, was ...any) (
	service Service, created bool, err error,
) {
	if d.Ranges, err = a.checkDefinition(pool, d); err != nil {
		return Service{}, false, err
	}
	// A store that lost its state has no service. The loss must be noticed before one is defined there, and hands out ports.
	if err := a.epoch.Recall(ctx); err != nil {
		return Service{}, false, translate(err)
	}
	if err := a.epoch.HandsOut(ctx); err != nil {
		return Service{}, false, translate(err)
	}
	listed, err := a.listPool(ctx, pool)
	if err != nil {
		return Service{}, false, err
	}
	service, created, settled, err := a.defineOnce(ctx, caller, pool, d, mayExist, was...)
	if err != nil && listed && wasRefused(err) {
		a.unlist(ctx, pool)
	}
	if created {
		a.relist(ctx, pool)
	}
	if err != nil || settled {
		return service, created, err
	}
	if err := a.settle(ctx, a.keys.Pool(pool), d.Name); err != nil {
		return Service{}, false, err
	}
	service, err = a.Service(ctx, pool, d.Name)
	return service, created, err
}

// maxSteps bounds how often a script is called that goes through many ports in steps of some 100.
const maxSteps = 10 + 2*65536/100

// defineOnce runs the script until it has an answer: each time that it asks for another call, it has looked at some ports.
// settled is false if the service must be settled afterwards.
func (a *Allocator) defineOnce(ctx context.Context, caller Caller, pool string, d Definition, mayExist bool, was ...any) (
	service Service, created, settled bool, err error,
) {
	args := []any{d.Name, d.Description, textOf(d.Ranges), d.Cooldown.Milliseconds(), flag(mayExist), a.opts.MaxServices, string(d.Pick),
		leaseBounds(valueOf(d.DefaultLease), valueOf(d.MaxLease)), flag(d.Drain)}
	k := a.keys.Pool(pool)
	call := k.Call(lua.Define, d.Name, "", a.withEvents(caller, append(args, was...)...)...)
	other := "" // a service that drained in these ranges
	for range maxSteps {
		answer, err := a.write(ctx, call)
		if err != nil {
			return Service{}, false, false, err
		}
		if answer == int64(0) {
			continue
		}
		if answer == int64(1) {
			return Service{}, false, false, errChanged
		}
		parts, _ := answer.([]any)
		if len(parts) == 2 {
			if other, err = a.settleDraining(ctx, k, other, parts); err != nil {
				return Service{}, false, false, err
			}
			continue
		}
		if len(parts) != 3 {
			return Service{}, false, false, malformed("service", d.Name)
		}
		service, err := parseService(d.Name, parts[0])
		return service, parts[1] == int64(1), parts[2] == int64(0), err
	}
	return Service{}, false, false, unavailable("ports are handed out faster than the range can be checked", nil)
}

// Service reads a service and counts its ports. It returns ErrServiceNotFound.
func (a *Allocator) Service(ctx context.Context, pool, service string) (Service, error) {
	if err := checkService(pool, service).err(); err != nil {
		return Service{}, err
	}
	k := a.keys.Pool(pool)
	for range maxSteps {
		answer, err := a.read(ctx, k.Call(lua.ReadService, service, "", service))
		if err != nil {
			return Service{}, a.notGone(ctx, pool, err)
		}
		if answer != int64(0) {
			return parseService(service, answer)
		}
		if err := a.settle(ctx, k, service); err != nil {
			return Service{}, err
		}
	}
	return Service{}, unavailable("the service is changed faster than it is read", nil)
}

// Services lists the services of a pool by their ranges: at most limit of those that start at cursor ("" for the first) or after.
// next is the cursor of the rest, "" if there is none. If some cannot be read, the page ends before them, and next continues there;
// it is an error if none can.
func (a *Allocator) Services(ctx context.Context, pool, cursor string, limit int) (services []Service, next string, err error) {
	var f faults
	f.name("pool", pool)
	start := f.cursor(cursor)
	f.limit(limit)
	if err := f.err(); err != nil {
		return nil, "", err
	}
	k := a.keys.Pool(pool)
	answer, err := a.read(ctx, k.ListServices(start, limit))
	if err != nil {
		return nil, "", err
	}
	listed, err := keyspace.ParseListed(answer)
	if err != nil {
		return nil, "", err
	}
	names := listed.Names
	var calls []executor.Call
	for some := range slices.Chunk(names, servicesPerScript) {
		calls = append(calls, readServices(k, some, false))
	}
	for i, r := range a.runAll(ctx, calls, heavyCallsPerBatch) {
		some := names[i*servicesPerScript : min((i+1)*servicesPerScript, len(names))]
		err := parseServices(some, r, func(s Service) { services = append(services, s) })
		if err != nil && len(services) == 0 {
			return nil, "", err
		} else if err != nil {
			return services, strconv.Itoa(services[len(services)-1].Start + 1), nil
		}
	}
	return services, listed.Next, nil
}

// servicesPerScript is how many services one script reads, so that it takes far less than a millisecond.
const servicesPerScript = 32

// readServices returns the call that reads some services, in brief: without description and time of creation.
func readServices(pool keyspace.Pool, services []string, inBrief bool) executor.Call {
	call := pool.Call(lua.ReadServices, "", "", flag(inBrief))
	call.Keys = make([]string, 0, len(lua.ReadServices.Each)*len(services))
	for _, service := range services {
		pool.AddEach(&call, service, "")
	}
	return call
}

// parseServices reads the answer to a call of readServices. It leaves out services that were removed meanwhile.
func parseServices(of []string, r executor.Result, add func(Service)) error {
	if r.Err != nil {
		return r.Err
	}
	answers, _ := r.Answer.([]any)
	if len(answers) != len(of) {
		return malformed("the list of", "services")
	}
	for i, answer := range answers {
		if answer == "" {
			continue
		}
		s, err := parseService(of[i], answer)
		if err != nil {
			return err
		}
		add(s)
	}
	return nil
}

// parseService reads what parts/services/describe.lua returns.
func parseService(name string, answer any) (Service, error) {
	fields, ok := answer.([]any)
	if !ok || len(fields) != 14 && len(fields) != 11 {
		return Service{}, malformed("service", name)
	}
	var n [8]int64
	for i := range n {
		var err error
		if n[i], err = toInt(fields[i]); err != nil {
			return Service{}, malformed("service", name)
		}
	}
	s := Service{
		Name:     name,
		Start:    int(n[0]),
		End:      int(n[1]),
		Cooldown: time.Duration(n[2]) * time.Millisecond,
		Waiting:  int(n[6]),
		now:      time.UnixMilli(n[7]),
	}
	if text, _ := fields[8].(string); text != "" {
		// Servers that know no ranges may have changed start or end since.
		if ranges, ok := parseRanges(text); ok && ranges[0].Start == s.Start && ranges[len(ranges)-1].End == s.End {
			s.Ranges = ranges
		}
	}
	pick, _ := fields[9].(string)
	s.Pick = Pick(pick)
	if len(fields) == 14 {
		s.Description, _ = fields[11].(string)
		created, err := toInt(fields[12])
		if err != nil {
			return Service{}, malformed("service", name)
		}
		s.Created = time.UnixMilli(created).UTC()
		if err := s.setLeaseBounds(fields[13]); err != nil {
			return Service{}, err
		}
	}
	p := PortCounts{Offered: int(n[3]), Allocated: int(n[4]), Cooling: int(n[5])}
	if text, _ := fields[10].(string); text != "" {
		count, ranges, _ := strings.Cut(text, " ")
		var ok bool
		if s.draining, ok = parseRanges(ranges); !ok {
			return Service{}, malformed("service", name)
		}
		p.Draining, _ = strconv.Atoi(count)
	}
	// Ports that drain may be counted late, while the range is changed.
	p.Free = max(0, sizeOf(s.ranges())+p.Draining-p.Offered-p.Allocated-p.Cooling)
	p.Total = p.Free + p.Offered + p.Allocated + p.Cooling
	s.Ports = p
	if slices.ContainsFunc(s.ranges(), func(r Range) bool { return r.Start <= ephemeralMax && r.End >= ephemeralMin }) {
		s.Warnings = []string{fmt.Sprintf(
			"the range meets Linux's own ephemeral ports (%d-%d): set net.ipv4.ip_local_reserved_ports on the hosts",
			ephemeralMin, ephemeralMax)}
	}
	return s, nil
}
