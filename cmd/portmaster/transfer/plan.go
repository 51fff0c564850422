package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"portmaster/client"
)

// Plan is what an import is going to do, and what cannot be taken over.
type Plan struct {
	Define  []Line // services that are new, or differ
	Claim   []Line // allocations that are not there yet
	Present int    // services and allocations that are there already
	Ended   int    // allocations whose lease is over
	Left    int    // allocations of services that cannot be taken over
	Faults  []Fault

	faulty map[serviceKey]bool // services that cannot be taken over
	drains []*drains           // those of Claim that are outside of the ranges of their services
}

// Fault is something that cannot be taken over.
type Fault struct {
	Line   int    // of the file; 0 if there is none
	Of     string // "pool/service", or "pool/service name"
	Detail string
}

func (f Fault) String() string {
	if f.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s", f.Line, f.Of, f.Detail)
	}
	return f.Of + ": " + f.Detail
}

// planned is a service as it will be, and what is allocated in it.
type planned struct {
	line    Line // that defines it; none if it is on the server only
	names   map[string]client.Allocation
	ports   map[int]string // the name that has each port
	present map[string]client.Allocation
}

type serviceKey struct{ pool, service string }

// MakePlan compares lines with what the server has, and finds what cannot be taken over. It changes nothing.
func MakePlan(ctx context.Context, c *client.Client, lines []Line) (*Plan, error) {
	p := &Plan{faulty: map[serviceKey]bool{}}
	services := map[serviceKey]*planned{}
	pools := map[string]bool{}
	for _, line := range lines {
		if !client.ValidName(line.Pool) {
			p.fault(line, "the name of the pool is not allowed")
			continue
		}
		if !pools[line.Pool] {
			pools[line.Pool] = true
			if err := readPool(ctx, c.Pool(line.Pool), line.Pool, services); err != nil {
				return nil, err
			}
		}
	}
	for _, line := range lines {
		if line.Service != nil && pools[line.Pool] {
			p.planService(line, services)
		}
	}
	p.findOverlaps(services)
	p.Define = slices.DeleteFunc(p.Define, func(l Line) bool { return p.faulty[serviceKey{l.Pool, l.Service.Name}] })
	for _, line := range lines {
		if line.Allocation != nil && pools[line.Pool] {
			p.planAllocation(line, services)
		}
	}
	p.planDrains(services)
	return p, nil
}

// readPool reads what the server has of a pool.
func readPool(ctx context.Context, c *client.Client, pool string, services map[serviceKey]*planned) error {
	var last *planned
	for line, err := range Read(ctx, c, pool) {
		if err != nil {
			return err
		}
		if s := line.Service; s != nil {
			s.Draining = false // what is to drain is for the lines to say
			last = &planned{
				line:  line,
				names: map[string]client.Allocation{}, ports: map[int]string{}, present: map[string]client.Allocation{},
			}
			services[serviceKey{pool, s.Name}] = last
			continue
		}
		a := *line.Allocation
		last.present[a.Name] = a
		last.take(a)
	}
	return nil
}

func (s *planned) take(a client.Allocation) {
	s.names[a.Name] = a
	for port := a.Port; port < a.Port+a.Count; port++ {
		s.ports[port] = a.Name
	}
}

func (p *Plan) fault(line Line, format string, args ...any) {
	p.Faults = append(p.Faults, Fault{line.number, line.of(), fmt.Sprintf(format, args...)})
	if line.Service != nil {
		p.faulty[serviceKey{line.Pool, line.Service.Name}] = true
	}
}

// leave leaves out an allocation that was to be claimed.
func (p *Plan) leave(line Line, format string, args ...any) {
	p.fault(line, format, args...)
	p.Claim = slices.DeleteFunc(p.Claim, func(l Line) bool { return l.Allocation == line.Allocation })
}

// inRanges are those of Claim that do not drain.
func (p *Plan) inRanges() []Line {
	drains := map[*client.Allocation]bool{}
	for _, d := range p.drains {
		for _, line := range d.lines {
			drains[line.Allocation] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(p.Claim), func(l Line) bool { return drains[l.Allocation] })
}

// of is what a line is about.
func (l Line) of() string {
	if l.Service != nil {
		return l.Pool + "/" + l.Service.Name
	}
	return l.Pool + "/" + l.Allocation.Service + " " + l.Allocation.Name
}

func (p *Plan) planService(line Line, services map[serviceKey]*planned) {
	s, key := line.Service, serviceKey{line.Pool, line.Service.Name}
	there := services[key]
	switch {
	case !client.ValidName(s.Name):
		p.fault(line, "this name is not allowed: 1 to 64 of A-Z a-z 0-9 . _ -")
	case s.Start < 1 || s.End > 65535 || s.Start > s.End:
		p.fault(line, "%d-%d is no range of ports", s.Start, s.End)
	case s.Cooldown < 0 || s.Cooldown > (30*24*time.Hour).Seconds() || s.Cooldown != s.Cooldown:
		p.fault(line, "the cooldown must be 0 to 30 days, in seconds")
	case s.Pick != "" && s.Pick != "name":
		p.fault(line, "%q is no way to pick ports: name, or none", s.Pick)
	case !isLease(s.DefaultLease) || !isLease(s.MaxLease) || s.MaxLease > 0 && s.DefaultLease > s.MaxLease:
		p.fault(line, "the default lease must be 1 s to 30 days, and not longer than the longest, which must be the same")
	case len(s.Description) > 256:
		p.fault(line, "the description is longer than 256 bytes")
	case !areApart(*s):
		p.fault(line, "%s are no ranges of ports that the service can have", s)
	case there != nil && there.line.number != 0:
		p.fault(line, "the service is in line %d as well", there.line.number)
	case there == nil:
		services[key] = &planned{line: line, names: map[string]client.Allocation{}, ports: map[int]string{}}
		p.Define = append(p.Define, line)
	case there.line.Service.isAs(*s):
		there.line = line
		p.Present++
	default:
		for _, a := range there.present {
			if !s.has(a) && !s.Draining {
				p.fault(line, "%s has port %d there, which is not in %s", a.Name, a.Port, s)
				return
			}
		}
		there.line = line
		p.Define = append(p.Define, line)
	}
}

// isAs reports whether two services are defined the same.
func (s Service) isAs(other Service) bool {
	s.Draining = other.Draining
	return reflect.DeepEqual(s, other)
}

// isLease reports whether a number of seconds can be a default or a longest lease, or stands for none.
func isLease(seconds float64) bool {
	return seconds == 0 || seconds >= minLease.Seconds() && seconds <= (30*24*time.Hour).Seconds()
}

// areApart reports whether the ranges of a service are in their order, from its start to its end.
func areApart(s Service) bool {
	last := 0
	for _, r := range s.ranges() {
		if r.Start <= last || r.End < r.Start {
			return false
		}
		last = r.End
	}
	return s.ranges()[0].Start == s.Start && last == s.End
}

// findOverlaps finds services of a pool whose ranges overlap.
func (p *Plan) findOverlaps(services map[serviceKey]*planned) {
	byPool := map[string][]*planned{}
	for key, s := range services {
		byPool[key.pool] = append(byPool[key.pool], s)
	}
	for _, all := range byPool {
		slices.SortFunc(all, func(a, b *planned) int {
			return cmp.Or(cmp.Compare(a.line.Service.Start, b.line.Service.Start), strings.Compare(a.line.Service.Name, b.line.Service.Name))
		})
		for i, s := range all {
			for j := i + 1; j < len(all) && all[j].line.Service.Start <= s.line.Service.End; j++ {
				if mine, others, found := all[j].line.Service.overlap(*s.line.Service); found {
					p.fault(all[j].line, "its range %d-%d overlaps %d-%d of %s", mine.Start, mine.End, others.Start, others.End, s.line.Service.Name)
					break
				}
			}
		}
	}
}

func (p *Plan) planAllocation(line Line, services map[serviceKey]*planned) {
	a := *line.Allocation
	key := serviceKey{line.Pool, a.Service}
	s := services[key]
	if p.faulty[key] {
		p.Left++
		return
	}
	if s == nil {
		p.fault(line, "there is no such service")
		return
	}
	if there, ok := s.present[a.Name]; ok && there.Port == a.Port && there.Count == a.Count {
		p.Present++
		return
	}
	if !a.Expires.IsZero() && remaining(a) < minLease {
		p.Ended++
		return
	}
	drains := s.line.Service.Draining && !s.line.Service.has(a)
	if err := s.check(a, drains); err != nil {
		p.fault(line, "%v", err)
		return
	}
	if drains {
		if other := otherWith(services, key, a.Port, a.Port+a.Count-1); other != "" {
			p.fault(line, "it drains outside of the ranges of its service, and %s has port %d or one behind it", other, a.Port)
			return
		}
		p.addDraining(key, line)
	}
	s.take(a)
	p.Claim = append(p.Claim, line)
}

// check says why the service cannot have an allocation, which may be outside of its ranges if it drains.
func (s *planned) check(a client.Allocation, drains bool) error {
	if !client.ValidInstanceName(a.Name) {
		return errors.New("this name is not allowed: 1 to 128 of A-Z a-z 0-9 . _ - / : @ + ~ =")
	}
	if a.Count > maxCount {
		return fmt.Errorf("it has %d consecutive ports, and %d are allowed", a.Count, maxCount)
	}
	if !drains && !s.line.Service.has(a) {
		return fmt.Errorf("port %d is not in %s", a.Port, s.line.Service)
	}
	if other, taken := s.names[a.Name]; taken {
		return fmt.Errorf("the name has port %d already", other.Port)
	}
	for port := a.Port; port < a.Port+a.Count; port++ {
		if name, taken := s.ports[port]; taken {
			return fmt.Errorf("%s has port %d already", name, port)
		}
	}
	return nil
}

// The bounds of the API.
const (
	minLease  = time.Second
	maxCount  = 100
	maxClaims = 100 // in one list
	maxPorts  = 256 // in one list
)

// remaining is what is left of a lease, in whole milliseconds.
func remaining(a client.Allocation) time.Duration {
	return time.Until(a.Expires).Truncate(time.Millisecond)
}
