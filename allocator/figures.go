package allocator

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
)

// Figures count the ports of a service, and the calls that wait for one.
type Figures struct {
	Pool, Service string
	Ports         PortCounts
	Waiting       int
}

// figuresLast is how long servers use a reading of all services instead of reading again.
const figuresLast = 10 * time.Second

// fewServices can be read as quickly as the shared reading, so up to this number they are not shared.
const fewServices = 256

// AllFigures reads the figures of the services of all pools. unread is the number of pools whose services could not all be read; it
// is an error if not even the list of pools could. If there are more than a few services, the reading may be one that another server
// made in the last 10 s.
func (a *Allocator) AllFigures(ctx context.Context) (all []Figures, unread int, err error) {
	if all, ok := a.sharedFigures(ctx); ok {
		return all, 0, nil
	}
	pools, err := a.listedPools(ctx)
	if err != nil {
		return nil, 0, err
	}
	all, unread = a.readFigures(ctx, pools)
	if unread == 0 && len(all) > fewServices {
		a.shareFigures(ctx, all)
	}
	return all, unread, nil
}

// servicesPerList is how many services one script of a reading lists.
const servicesPerList = 500

// readFigures reads the figures of the services of some pools. It unlists pools that have no service.
func (a *Allocator) readFigures(ctx context.Context, pools []string) (all []Figures, unread int) {
	failed := map[string]bool{}
	starts := make([]int, len(pools)) // where the rest of each pool begins
	var empty []string
	for len(pools) > 0 {
		lists := make([]executor.Call, len(pools))
		for i, pool := range pools {
			lists[i] = a.keys.Pool(pool).ListServices(starts[i], servicesPerList)
		}
		var reads []executor.Call
		var of []listedPart // what each read is of
		var longer []string
		var rest []int
		for i, r := range a.runAll(ctx, lists, callsPerBatch) {
			listed, err := keyspace.ParseListed(r.Answer)
			if cmp.Or(r.Err, err) != nil {
				failed[pools[i]] = true
			} else if listed.Count == 0 {
				empty = append(empty, pools[i])
			}
			if start, err := strconv.Atoi(listed.Next); err == nil {
				longer, rest = append(longer, pools[i]), append(rest, start)
			}
			for some := range slices.Chunk(listed.Names, servicesPerScript) {
				reads = append(reads, readServices(a.keys.Pool(pools[i]), some, true))
				of = append(of, listedPart{pools[i], some})
			}
		}
		for i, r := range a.runAll(ctx, reads, heavyCallsPerBatch) {
			pool := of[i].pool
			err := parseServices(of[i].services, r, func(s Service) {
				all = append(all, Figures{pool, s.Name, s.Ports, s.Waiting})
			})
			if err != nil {
				failed[pool] = true
			}
		}
		pools, starts = longer, rest
	}
	// A service whose range was changed meanwhile may have been read twice.
	byName := func(f, g Figures) int {
		return cmp.Or(strings.Compare(f.Pool, g.Pool), strings.Compare(f.Service, g.Service))
	}
	slices.SortFunc(all, byName)
	all = slices.CompactFunc(all, func(f, g Figures) bool { return byName(f, g) == 0 })
	a.unlist(ctx, empty...)
	return all, len(failed)
}

// listedPart is some of the services of a pool.
type listedPart struct {
	pool     string
	services []string
}

// The reading that servers share is a text: a line "/POOL" before the services of a pool, and one
// "SERVICE FREE OFFERED ALLOCATED COOLING WAITING" for each. It begins with the version of this format.
const figuresVersion = "1\n"

// shareFigures stores a reading for other servers. If Redis has no room for it, they read for themselves.
func (a *Allocator) shareFigures(ctx context.Context, all []Figures) {
	text := make([]byte, 0, 32*len(all))
	text = append(text, figuresVersion...)
	pool := ""
	for _, f := range all {
		if f.Pool != pool {
			pool = f.Pool
			text = append(append(append(text, '/'), pool...), '\n')
		}
		text = append(text, f.Service...)
		for _, n := range []int{f.Ports.Free, f.Ports.Offered, f.Ports.Allocated, f.Ports.Cooling, f.Waiting} {
			text = strconv.AppendInt(append(text, ' '), int64(n), 10)
		}
		text = append(text, '\n')
	}
	_ = a.executor.Set(ctx, a.keys.Figures(), string(text), figuresLast)
}

// sharedFigures returns the last reading that a server stored, if there is one.
func (a *Allocator) sharedFigures(ctx context.Context) (all []Figures, ok bool) {
	text, err := a.executor.Get(ctx, a.keys.Figures())
	if err != nil {
		return nil, false
	}
	text, ok = strings.CutPrefix(text, figuresVersion)
	if !ok {
		return nil, false
	}
	all = make([]Figures, 0, strings.Count(text, "\n"))
	pool := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "/"); ok {
			pool = name
			continue
		}
		f := Figures{Pool: pool}
		if f.parse(line) != nil {
			return nil, false
		}
		all = append(all, f)
	}
	return all, true
}

func (f *Figures) parse(line string) (err error) {
	var numbers string
	f.Service, numbers, _ = strings.Cut(line, " ")
	p := &f.Ports
	for _, to := range []*int{&p.Free, &p.Offered, &p.Allocated, &p.Cooling, &f.Waiting} {
		var n string
		var parseErr error
		n, numbers, _ = strings.Cut(numbers, " ")
		*to, parseErr = strconv.Atoi(n)
		err = errors.Join(err, parseErr)
	}
	p.Total = p.Free + p.Offered + p.Allocated + p.Cooling
	return err
}
