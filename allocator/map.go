package allocator

import (
	"context"
	"slices"
	"strconv"
	"time"

	"portmaster/lua"
)

// PortState says what a port of a service is doing.
type PortState string

// The states of a port. PortCounts counts a quarantined port as a cooling one.
const (
	StateFree        PortState = "free"        // may be handed out now
	StateOffered     PortState = "offered"     // held for an open offer
	StateAllocated   PortState = "allocated"   // held for an allocation
	StateCooling     PortState = "cooling"     // given back less than a cooldown ago
	StateQuarantined PortState = "quarantined" // rests until a time of its own: found in use, or cooling when its service was changed
)

// PortMap is what the ports of a service are doing, or some of them.
type PortMap struct {
	Service    string
	Time       time.Time // when the first of the entries was read, by Redis's clock
	Start, End int       // the range of the service, both ends included; if it has several, the first and the last of all ports
	Ranges     []Range   // if the service has several, in their order
	Entries    []MapEntry
}

// MapEntry is a run of free ports, all ports of a holder, or one port that cools down or is quarantined.
type MapEntry struct {
	Start, End int // both ends included
	State      PortState
	Name       string    // of the holder of an offered or allocated port
	Owner      string    // of such a port; "": nobody in particular
	Created    time.Time // of the offer or allocation; zero if there is none
	Until      time.Time // when the state ends unless something is done; zero if it does not: free, or allocated without a lease
	Draining   bool      // a port of the holder is in a range that the service had: it is gone when the hold ends
}

// MaxMapped is how many ports of the service a page of a map covers at most. Its last entry may reach beyond that, since a holder is one entry.
const MaxMapped = 4096

// Map reads what the ports of a service are doing, in ascending order: limit of them from cursor on ("" for the first). next is the
// cursor of the rest, "" if there is none. Ports of one range that are read together, some 512, are of one moment; a page of a service
// with one range takes up to eight readings. It returns ErrInvalid or ErrServiceNotFound.
//
// A holder is one entry, however long its block is. So a page, or a reading, ends after the last port of its last holder, and the next
// one begins there. If that holder came in between the two, the next page begins with it: before its cursor.
func (a *Allocator) Map(ctx context.Context, pool, service, cursor string, limit int) (m PortMap, next string, err error) {
	f := checkService(pool, service)
	from := f.cursor(cursor)
	if limit < 1 || limit > MaxMapped {
		f.add("limit", "must be within 1-%d", MaxMapped)
	}
	if err := f.err(); err != nil {
		return PortMap{}, "", err
	}
	m = PortMap{Service: service}
	for {
		r, err := a.readMap(ctx, pool, service, from, limit)
		if err != nil {
			return PortMap{}, "", err
		}
		if m.Time.IsZero() {
			m.Time = r.now
		}
		m.Start, m.End, m.Ranges = r.ranges[0].Start, r.ranges[len(r.ranges)-1].End, nil
		if len(r.ranges) > 1 {
			m.Ranges = r.ranges
		}
		all := sorted(append(slices.Clone(r.ranges), r.draining...))
		at := slices.IndexFunc(all, func(one Range) bool { return one.End >= from })
		if at < 0 {
			return m, "", nil
		}
		from = max(from, all[at].Start)
		entries, err := r.entries(from, min(from+limit-1, all[at].End))
		if err != nil {
			return PortMap{}, "", err
		}
		m.add(r.kept(entries))
		end := entries[len(entries)-1].End
		if limit -= end + 1 - from; end >= all[len(all)-1].End {
			return m, "", nil
		}
		if from = end + 1; limit <= 0 {
			return m, strconv.Itoa(from), nil
		}
	}
}

// kept returns the entries of ports that the service has: in ranges that drain, those that are held.
func (r mapReading) kept(entries []MapEntry) (kept []MapEntry) {
	for _, e := range entries {
		e.Draining = slices.ContainsFunc(r.draining, func(one Range) bool { return one.Start <= e.End && one.End >= e.Start })
		if !e.Draining || e.State == StateOffered || e.State == StateAllocated {
			kept = append(kept, e)
		}
	}
	return kept
}

// add appends entries. A run of free ports goes on across two readings.
func (m *PortMap) add(entries []MapEntry) {
	for _, e := range entries {
		if n := len(m.Entries); e.State == StateFree && n > 0 && m.Entries[n-1].State == StateFree && m.Entries[n-1].End == e.Start-1 {
			m.Entries[n-1].End = e.End
		} else {
			m.Entries = append(m.Entries, e)
		}
	}
}

// mapReading is an answer of read_map.lua.
type mapReading struct {
	service                            string
	now                                time.Time
	ranges                             []Range
	draining                           []Range // those that the service had, while ports of them are held
	cooldown                           time.Duration
	first                              int // the port that the lists begin with; those before it are free
	free, resting, offers, allocations []any
}

// readMap runs the script, on a service that is in order.
func (a *Allocator) readMap(ctx context.Context, pool, service string, from, count int) (mapReading, error) {
	answer, err := a.readSettled(ctx, pool, service, a.keys.Pool(pool).Call(lua.ReadMap, service, "", service, from, count))
	if err != nil {
		return mapReading{}, err
	}
	return parseMap(service, answer)
}

func parseMap(service string, answer any) (mapReading, error) {
	parts, _ := answer.([]any)
	if len(parts) != 9 {
		return mapReading{}, malformed("the map of", service)
	}
	text, _ := parts[1].(string)
	ranges, ok := parseRanges(text)
	var draining []Range
	if text, _ := parts[8].(string); ok && text != "" {
		draining, ok = parseRanges(text)
	}
	var n [3]int64
	for i, at := range []int{0, 2, 3} {
		var err error
		if n[i], err = toInt(parts[at]); err != nil || !ok {
			return mapReading{}, malformed("the map of", service)
		}
	}
	r := mapReading{
		service: service, now: time.UnixMilli(n[0]).UTC(), ranges: ranges, draining: draining,
		cooldown: time.Duration(n[1]) * time.Millisecond, first: int(n[2]),
	}
	for i, list := range []*[]any{&r.free, &r.resting, &r.offers, &r.allocations} {
		if *list, _ = parts[4+i].([]any); len(*list) != len(r.free) {
			return mapReading{}, malformed("the map of", service)
		}
	}
	return r, nil
}

// entries returns those of the ports from-last that were read, or the first of them.
func (r mapReading) entries(from, last int) (entries []MapEntry, err error) {
	if r.first > from {
		entries = append(entries, MapEntry{Start: from, End: min(r.first-1, last), State: StateFree})
	}
	for port := r.first; port <= last && port < r.first+len(r.free); {
		e, err := r.entry(port)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
		port = e.End + 1
	}
	if len(entries) == 0 || entries[len(entries)-1].End < from {
		return nil, malformed("the map of", r.service)
	}
	return entries, nil
}

// entry returns the entry that begins with a port.
func (r mapReading) entry(port int) (MapEntry, error) {
	i := port - r.first
	if allocation := recordIn(r.allocations[i]); allocation != "" && !allocation.ofBlock() {
		a, err := parseAllocation(r.service, allocation)
		if err != nil {
			return MapEntry{}, err
		}
		if a.Expires.IsZero() || a.Expires.After(r.now) {
			return MapEntry{port, port + a.Count - 1, StateAllocated, a.Name, a.Owner, a.Created, a.Expires, false}, nil
		}
	}
	one := MapEntry{Start: port, End: port, State: StateFree}
	score, isFree := timeIn(r.free[i])
	if isFree && score.After(r.now) {
		return r.offered(one, recordIn(r.offers[i]))
	}
	if rests, ok := timeIn(r.resting[i]); ok && rests.After(r.now) {
		one.State, one.Until = StateQuarantined, rests
	} else if cooled := score.Add(r.cooldown); isFree && cooled.After(r.now) {
		one.State, one.Until = StateCooling, cooled
	}
	return one, nil
}

// offered completes the entry of a port that is on offer. Of a block the record stands at the first port.
func (r mapReading) offered(one MapEntry, offer record) (MapEntry, error) {
	one.State = StateOffered
	if offer == "" || offer == leased {
		return one, nil // a change by hand
	}
	o, err := parseOffer(offer)
	if err != nil {
		return MapEntry{}, err
	}
	return MapEntry{one.Start, one.Start + o.Count - 1, StateOffered, o.Name, o.Owner, o.Created, o.Expires, false}, nil
}

// recordIn returns the record that a list of an answer has at a place; "" if it has none.
func recordIn(value any) record {
	text, _ := value.(string)
	return record(text)
}

// timeIn returns the time that a list of an answer has at a place, as the score of a ZSET.
func timeIn(value any) (time.Time, bool) {
	text, _ := value.(string)
	score, err := strconv.ParseFloat(text, 64)
	return time.UnixMilli(int64(score)).UTC(), err == nil
}
