package allocator

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// HistoryFilter says which events of a service are listed: those that have all that it names. A zero field means any.
type HistoryFilter struct {
	Port  *int // one of the ports of the event
	Name  string
	Owner string
	Since time.Time // the event happened then or later
	Until time.Time // the event happened earlier
	At    time.Time // the allocations that were held then: their EventAllocated. It needs Port or Name, and goes without the two above
}

// How much one page of a history reads.
const (
	eventsPerCommand = 1000
	eventsPerPage    = 10_000
)

// History lists events of a service, the newest first: at most limit of them, from cursor ("" for the newest). next is the cursor of
// the rest, "" if there is none. A page ends early, and may be empty, if it has read 10,000 events. The history of a removed service
// is there for 31 days. It returns ErrInvalid, or ErrServiceNotFound for a service that has neither a definition nor a history.
func (a *Allocator) History(ctx context.Context, pool, service string, filter HistoryFilter, cursor string, limit int) (
	events []Event, next string, err error,
) {
	high, err := checkHistory(pool, service, filter, cursor, limit)
	if err != nil {
		return nil, "", err
	}
	s, err := a.Service(ctx, pool, service)
	isRemoved := errors.Is(err, ErrServiceNotFound)
	if isRemoved && a.hasHistory(ctx, pool, service) {
		err = nil
	}
	if err != nil {
		return nil, "", err
	}
	h := history{a: a, pool: pool, service: service}
	if !filter.At.IsZero() {
		events, next, err = h.heldAt(ctx, filter, high)
	} else {
		events, next, err = h.page(ctx, filter, high, limit)
	}
	if err == nil && !isRemoved {
		err = a.markExpired(ctx, pool, s, events)
	}
	if err != nil {
		return nil, "", err
	}
	if !filter.At.IsZero() && len(events) > 0 && !events[0].Expired.IsZero() && !events[0].Expired.After(filter.At) {
		events = nil
	}
	return events, next, nil
}

// hasHistory reports whether there is any event of a service.
func (a *Allocator) hasHistory(ctx context.Context, pool, service string) bool {
	newest, err := a.executor.Backwards(ctx, a.keys.Pool(pool).Events(service), "+", "-", 1)
	return err == nil && len(newest) > 0
}

// markExpired finds the allocations whose lease has run out, which no event tells until another call gets the port. Since renewals
// are no events either, the current record says when.
func (a *Allocator) markExpired(ctx context.Context, pool string, s Service, events []Event) error {
	at := map[int][]int{}
	for i, e := range events {
		if e.Kind == EventAllocated {
			at[e.Port] = append(at[e.Port], i)
		}
	}
	for ports := range slices.Chunk(slices.Collect(maps.Keys(at)), portsPerCommand) {
		records, err := a.records(ctx, a.keys.Pool(pool).Ports(s.Name), ports)
		if err != nil {
			return err
		}
		for n, found := range records {
			text, _ := found.(string)
			fence, _ := record(text).number(`"fence":`)
			expires, isLeased := record(text).time(`"expires":`)
			for _, i := range at[ports[n]] {
				if isLeased && events[i].Fence == fence && !expires.After(s.now) {
					events[i].Expired = expires
				}
			}
		}
	}
	return nil
}

// checkHistory returns the id of the first event to look at.
func checkHistory(pool, service string, filter HistoryFilter, cursor string, limit int) (high eventID, err error) {
	f := checkService(pool, service)
	f.port("port", filter.Port)
	if filter.Name != "" {
		f.instance("name", filter.Name)
	}
	f.owner("owner", filter.Owner)
	f.limit(limit)
	f.times(filter)
	high = lastOf(1<<63 - 1)
	if !filter.At.IsZero() {
		high = lastOf(uint64(max(0, filter.At.UnixMilli())))
	} else if !filter.Until.IsZero() {
		high = eventID{ms: ceilMilli(filter.Until)}.before()
	}
	if cursor != "" {
		from, ok := parseEventID(cursor)
		if !ok {
			f.add("cursor", "is not a cursor that a list returned")
		} else if high.after(from) {
			high = from
		}
	}
	return high, f.err()
}

// times checks the times of a filter.
func (f *faults) times(filter HistoryFilter) {
	since, until, at := filter.Since, filter.Until, filter.At
	if !since.IsZero() && !until.IsZero() && !since.Before(until) {
		f.add("since", "must be before until")
	}
	if at.IsZero() {
		return
	}
	if filter.Port == nil && filter.Name == "" {
		f.add("at", "needs port or name")
	}
	if !since.IsZero() || !until.IsZero() {
		f.add("at", "cannot be combined with since or until")
	}
}

// ceilMilli returns the first whole millisecond that is not before t.
func ceilMilli(t time.Time) uint64 {
	return uint64(max(0, t.Add(time.Millisecond-1).UnixMilli()))
}

// history reads the history of one service.
type history struct {
	a             *Allocator
	pool, service string
}

// page lists the events of a filter that are not newer than high.
func (h *history) page(ctx context.Context, filter HistoryFilter, high eventID, limit int) (events []Event, next string, err error) {
	rest, err := h.walk(ctx, high, eventID{ms: ceilMilli(filter.Since)}, func(e Event) bool {
		if filter.covers(&e) {
			events = append(events, e)
		}
		return len(events) < limit
	})
	return events, rest, err
}

func (filter *HistoryFilter) covers(e *Event) bool {
	return (filter.Port == nil || e.has(*filter.Port)) && (filter.Name == "" || e.Name == filter.Name) &&
		(filter.Owner == "" || e.Owner == filter.Owner)
}

// walk visits events from high down to low, until visit returns false or eventsPerPage were visited. rest is the id from which a
// later call goes on, "" if there is nothing more.
func (h *history) walk(ctx context.Context, high, low eventID, visit func(Event) bool) (rest string, err error) {
	key := h.a.keys.Pool(h.pool).Events(h.service)
	for range eventsPerPage / eventsPerCommand {
		entries, err := h.a.executor.Backwards(ctx, key, high.String(), low.String(), eventsPerCommand)
		if err != nil {
			return "", translate(err)
		}
		for i, entry := range entries {
			e, err := parseEvent(h.service, entry)
			if err != nil {
				return "", err
			}
			high = e.id.before()
			if !visit(e) {
				if i == len(entries)-1 && len(entries) < eventsPerCommand {
					return "", nil
				}
				return high.String(), nil
			}
		}
		if len(entries) < eventsPerCommand {
			return "", nil
		}
	}
	return high.String(), nil
}

// heldAt finds the allocation of a port or a name that was held at a time: the last one before that, unless it had ended by then.
func (h *history) heldAt(ctx context.Context, filter HistoryFilter, high eventID) (events []Event, next string, err error) {
	var found *Event
	rest, err := h.walk(ctx, high, eventID{}, func(e Event) bool {
		if e.Kind == EventAllocated && (filter.Port == nil || e.has(*filter.Port)) && (filter.Name == "" || e.Name == filter.Name) {
			found = &e
		}
		return found == nil
	})
	if err != nil || found == nil {
		return nil, rest, err
	}
	if filter.Owner != "" && found.Owner != filter.Owner {
		return nil, "", nil
	}
	ended, err := h.ended(ctx, found)
	if err != nil || !ended.IsZero() && !ended.After(filter.At) {
		return nil, "", err
	}
	return []Event{*found}, "", nil
}

// ended returns when an allocation ended; zero if it has not, or if none of the next 10,000 events tells.
func (h *history) ended(ctx context.Context, of *Event) (time.Time, error) {
	key := h.a.keys.Pool(h.pool).Events(h.service)
	for low, read := of.id, 0; read < eventsPerPage; read += eventsPerCommand {
		entries, err := h.a.executor.Forwards(ctx, key, "("+low.String(), "+", eventsPerCommand)
		if err != nil {
			return time.Time{}, translate(err)
		}
		for _, entry := range entries {
			e, err := parseEvent(h.service, entry)
			if err != nil {
				return time.Time{}, err
			}
			low = e.id
			switch {
			case e.Kind == EventReleased && e.Fence == of.Fence:
				return e.Time, nil
			case e.Kind == EventExpired && e.Fence == of.Fence:
				return e.Until, nil
			case e.Kind == EventAllocated && (e.Name == of.Name || e.Port < of.Port+of.Count && of.Port < e.Port+e.Count):
				return e.Time, nil // no event tells of the end, which must have been by then
			}
		}
		if len(entries) < eventsPerCommand {
			break
		}
	}
	return time.Time{}, nil
}
