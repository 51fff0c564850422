package allocator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"portmaster/allocator/keyspace"
)

// Listener hears the events of a service, or of all services of a pool, as they happen. It is for one goroutine.
type Listener struct {
	a       *Allocator
	pool    string
	keys    keyspace.Pool
	service string // "": all
	wake    chan struct{}

	// What it has missed it reads by itself, before it hears the follower.
	from      eventID
	behind    bool
	tries     int
	positions map[string]eventID // up to which it has read
	first     []Event            // come before all others

	follower *follower // nil while it hears none

	// Guarded by the follower's lock.
	placed bool // the follower knows from where to read for it
	buffer []Event
	ended  error
}

// ErrSlow ends a Listener that does not keep up.
var ErrSlow = errors.New("the listener is too slow")

func tooManyServices() *Error {
	return &Error{Code: CodeLimitReached, Detail: fmt.Sprintf(
		"the pool has more than %d services, too many to listen to all of them: listen to one", maxFollowed)}
}

// Listen returns a Listener to a service, or to all services of a pool if service is "". It hears what happened after an event, if
// after is the ID of that one; and EventReset first, if events after that one may be missing. If after is "", it hears what happens
// from now on. The caller has to Close it.
//
// It returns ErrInvalid; ErrServiceNotFound for a service that has neither a definition nor a history; and ErrLimitReached for all
// services of a pool that has more than 1,000.
func (a *Allocator) Listen(ctx context.Context, pool, service, after string) (*Listener, error) {
	l := &Listener{
		a: a, pool: pool, keys: a.keys.Pool(pool), service: service, wake: make(chan struct{}, 1), positions: map[string]eventID{},
	}
	if err := l.check(after); err != nil {
		return nil, err
	}
	services, _, err := l.services(ctx)
	if err != nil {
		return nil, err
	}
	if after != "" {
		if l.behind, err = l.canResume(ctx, services); err != nil {
			return nil, err
		}
	}
	if !l.behind {
		if err := l.begin(ctx); err != nil {
			l.Close()
			return nil, err
		}
		l.from = highest(l.positions)
		if after != "" {
			l.first = append(l.first, Event{Kind: EventReset, Service: service}.at(l.from))
		}
	} else {
		l.missed(services)
	}
	l.first = append(l.first, Event{Kind: EventReady, Service: service}.at(l.from))
	return l, nil
}

// check reads the id after which it is to begin.
func (l *Listener) check(after string) error {
	var f faults
	f.name("pool", l.pool)
	if l.service != "" {
		f.name("service", l.service)
	}
	if after != "" {
		var ok bool
		if l.from, ok = parseEventID(after); !ok {
			f.add("last_event_id", "is not the id of an event")
		}
	}
	return f.err()
}

// services returns the services to which it listens, and the time of Redis before they were looked up.
func (l *Listener) services(ctx context.Context) (services []string, at time.Time, err error) {
	if l.service != "" {
		_, err := l.a.Service(ctx, l.pool, l.service)
		if errors.Is(err, ErrServiceNotFound) && l.a.hasHistory(ctx, l.pool, l.service) {
			err = nil
		}
		return []string{l.service}, at, err
	}
	r, err := l.a.readEvents(ctx, l.keys, nil, true, false)
	if err == nil && len(r.services) > maxFollowed {
		err = tooManyServices()
	}
	return r.services, r.now, err
}

// canResume reports whether nothing is missing of what happened after l.from: that event is still there, and no history was
// trimmed beyond it.
func (l *Listener) canResume(ctx context.Context, services []string) (bool, error) {
	keys := eventKeys(l.keys, services)
	ids := make([]string, len(keys))
	for i := range ids {
		ids[i] = l.from.String()
	}
	at, err := l.a.executor.At(ctx, string(l.keys), keys, ids)
	if err != nil {
		return false, translate(err)
	}
	oldest, err := l.a.executor.Oldest(ctx, string(l.keys), keys)
	if err != nil {
		return false, translate(err)
	}
	isThere := l.from == eventID{}
	var later []string // begin after it
	for i, key := range keys {
		isThere = isThere || at[i].ID != ""
		if eventOf(services[i], oldest[i]).id.after(l.from) {
			later = append(later, key)
		}
	}
	lengths, err := l.a.executor.Lengths(ctx, string(l.keys), later)
	if err != nil {
		return false, translate(err)
	}
	isTrimmed := func(length int) bool { return l.a.opts.History > 0 && length >= l.a.opts.History }
	return isThere && !slices.ContainsFunc(lengths, isTrimmed), nil
}

// missed has it read what happened after l.from.
func (l *Listener) missed(services []string) (isNews bool) {
	for _, service := range services {
		if _, ok := l.positions[service]; !ok {
			l.positions[service], isNews = l.from, true
		}
	}
	return isNews
}

// begin has it hear what happens from now on.
func (l *Listener) begin(ctx context.Context) error {
	l.follower = l.a.follow(l.pool, l)
	services, at, err := l.services(ctx)
	if err != nil {
		return err
	}
	if l.positions, err = l.a.newestEvents(ctx, l.keys, services); err != nil {
		return err
	}
	l.follower.place(l, at)
	return nil
}

// maxTries is how often it waits for a millisecond to end.
const maxTries = 10

// catchUp reads some of what it has missed. If that was all, it hears the follower from then on.
func (l *Listener) catchUp(ctx context.Context) ([]Event, error) {
	r, err := l.a.readEvents(ctx, l.keys, l.positions, l.service == "", l.tries < maxTries)
	switch {
	case err != nil:
		return nil, err
	case len(r.services) > maxFollowed:
		return nil, tooManyServices()
	case l.missed(r.services):
		return nil, nil // the events of a new service may come before those that were read
	}
	for _, e := range r.events {
		l.positions[e.Service] = e.id
	}
	switch {
	case r.isPart:
	case l.follower == nil: // what happens while it registers is read once more
		l.follower = l.a.follow(l.pool, l)
	case r.withheld:
		l.tries++
		time.Sleep(minPause)
	default:
		l.follower.place(l, r.now)
		l.behind = false
	}
	return r.events, nil
}

// Wake receives when Next may return something.
func (l *Listener) Wake() <-chan struct{} { return l.wake }

// Next returns what happened since the last call; nothing if nothing did. It does not wait for events, but it may ask Redis for those
// that were missed. An error ends the Listener: ErrSlow, ErrLimitReached, ErrUnavailable.
func (l *Listener) Next(ctx context.Context) (events []Event, err error) {
	if l.first != nil {
		events, l.first = l.first, nil
		return events, nil
	}
	for l.behind {
		if events, err = l.catchUp(ctx); err != nil || len(events) > 0 {
			return l.fresh(events, false), err
		}
	}
	l.follower.mu.Lock()
	events, l.buffer, err = l.buffer, nil, l.ended
	l.follower.mu.Unlock()
	return l.fresh(events, true), err
}

// fresh leaves out what is no event, and what it has read by itself.
func (l *Listener) fresh(events []Event, isHeard bool) []Event {
	kept := events[:0]
	for _, e := range events {
		switch {
		case e.Kind == "" || isHeard && e.Kind != EventReset && !e.id.after(l.positions[e.Service]):
			continue
		case e.Kind == EventReset:
			clear(l.positions)
		}
		kept = append(kept, e)
	}
	return kept
}

// Close ends the Listener.
func (l *Listener) Close() {
	if l.follower != nil {
		l.follower.leave(l)
	}
}

// hear gives it events. The caller holds the follower's lock.
func (l *Listener) hear(events ...Event) {
	had := len(l.buffer)
	for _, e := range events {
		if l.service == "" || l.service == e.Service {
			l.buffer = append(l.buffer, e)
		}
	}
	switch {
	case len(l.buffer) == had || l.ended != nil:
		l.buffer = l.buffer[:had]
	case had >= eventsPerBuffer:
		l.end(ErrSlow)
	default:
		l.signal()
	}
}

// end ends it. The caller holds the follower's lock.
func (l *Listener) end(cause error) {
	if l.ended == nil {
		l.ended = cause
	}
	l.buffer = nil
	l.signal()
}

func (l *Listener) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// place tells the follower from where to read for a Listener that has read up to its positions. Its services were listed at a time.
func (f *follower) place(l *Listener, listed time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for service, at := range l.positions {
		if _, ok := f.positions[service]; ok {
			continue
		}
		if !f.listed.IsZero() { // another one listens to all, and may not have heard of the service
			at = f.unlistedAt()
		}
		f.positions[service] = at
	}
	if l.service == "" && f.listed.IsZero() {
		f.listed = listed
	}
	l.placed = true
}
