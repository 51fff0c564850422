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

// Service reads a service and counts its ports. It returns ErrServiceNotFound.
func (a *Allocator) Service(ctx context.Context, pool, service string) (Service, error) {
	if err := checkService(pool, service).err(); err != nil {
		return Service{}, err
	}
	answer, err := a.readSettled(ctx, pool, service, a.keys.Pool(pool).Call(lua.ReadService, service, "", service))
	if err != nil {
		return Service{}, err
	}
	return parseService(service, answer)
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
