package allocator

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
)

// readEvents is what one reading of some histories of a pool found.
type readEvents struct {
	now      time.Time // Redis's, before the rest was read
	services []string  // of the pool, if they were to be listed; more than maxFollowed if there are more
	events   []Event   // in the order of their ids. There will be none between them and before the last
	isPart   bool      // a history may have more than was read of it
	withheld bool      // there are events after which others of the same millisecond may follow
}

// readEvents reads what has come into the histories of some services after a position in each. With hold, it leaves events out whose
// millisecond is not over. An entry that is no event has no Kind.
func (a *Allocator) readEvents(ctx context.Context, k keyspace.Pool, positions map[string]eventID, list, hold bool) (r readEvents, err error) {
	if err := a.epoch.Open(ctx); err != nil {
		return r, translate(err)
	}
	services, after := split(positions)
	reading := executor.Reading{
		Slot: string(k), Keys: eventKeys(k, services), After: after, Count: max(minPerHistory, eventsPerRound/max(1, len(services))),
	}
	if list {
		reading.Listed, reading.Most = k.Services(), maxFollowed+1
	}
	read, err := a.executor.ReadStreams(ctx, reading)
	if err != nil {
		return r, translate(err)
	}
	r.now, r.services = read.Now, read.Listed
	complete := lastOf(1<<64 - 1)
	for i, entries := range read.Entries {
		var last eventID
		for _, entry := range entries {
			e := eventOf(services[i], entry)
			r.events, last = append(r.events, e), e.id
		}
		if len(entries) == reading.Count {
			r.isPart = true
			complete = lower(complete, last)
		}
	}
	if over := (eventID{ms: milli(read.Now)}).before(); hold && complete.after(over) {
		complete = over
		r.withheld = slices.ContainsFunc(r.events, func(e Event) bool { return e.id.after(over) })
	}
	r.events = slices.DeleteFunc(r.events, func(e Event) bool { return e.id.after(complete) })
	slices.SortFunc(r.events, func(x, y Event) int { return cmp.Or(x.id.compare(y.id), cmp.Compare(x.Service, y.Service)) })
	for i := 1; i < len(r.events); i++ {
		r.events[i-1].Tied = r.events[i-1].id == r.events[i].id
	}
	return r, nil
}

// eventOf reads an entry that may not be an event.
func eventOf(service string, entry executor.Entry) Event {
	e, err := parseEvent(service, entry)
	if err != nil {
		id, _ := parseEventID(entry.ID)
		return Event{Service: service}.at(id)
	}
	return e
}

// newestEvents returns the id of the newest event of each of some services, 0-0 if there is none.
func (a *Allocator) newestEvents(ctx context.Context, k keyspace.Pool, services []string) (map[string]eventID, error) {
	found, err := a.executor.Newest(ctx, string(k), eventKeys(k, services))
	if err != nil {
		return nil, translate(err)
	}
	newest := make(map[string]eventID, len(services))
	for i, entry := range found {
		newest[services[i]], _ = parseEventID(entry.ID)
	}
	return newest, nil
}

// split returns the services of some positions, in order, and the positions as Redis has them.
func split(positions map[string]eventID) (services, after []string) {
	services = slices.Sorted(maps.Keys(positions))
	after = make([]string, len(services))
	for i, service := range services {
		after[i] = positions[service].String()
	}
	return services, after
}

func eventKeys(k keyspace.Pool, services []string) []string {
	keys := make([]string, len(services))
	for i, service := range services {
		keys[i] = k.Events(service)
	}
	return keys
}

// highest returns the highest of some ids; 0-0 if there is none.
func highest(of map[string]eventID) (id eventID) {
	for _, each := range of {
		if each.after(id) {
			id = each
		}
	}
	return id
}

func lower(x, y eventID) eventID {
	if x.after(y) {
		return y
	}
	return x
}

func milli(t time.Time) uint64 { return uint64(max(0, t.UnixMilli())) }
