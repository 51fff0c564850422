package allocator

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
)

// How events get from the histories in Redis to the Listeners of this server: a follower of each pool reads the histories to which
// somebody listens, and hands each event to all whom it concerns.
//
// The events of a pool are handed out in the order of their ids, so that a Listener of all services can resume after the last one.
// Redis gives an id the time of the event, so those of a millisecond are complete once its clock is past that.

const (
	waitForEvents = 250 * time.Millisecond // how long a follower waits for an event before it looks which services there are
	minPause      = 2 * time.Millisecond   // between two readings
	maxPause      = 100 * time.Millisecond
	pauseFactor   = 10                     // a pause is that many times as long as the reading before it
	holdBack      = 20 * time.Millisecond  // how long the clock of Redis is waited for, since it may have stepped back
	checkInterval = 5 * time.Second        // how often it is checked that no event was lost that was handed out
	errorPause    = 500 * time.Millisecond // after Redis did not answer

	maxFollowed     = 1000 // services of a pool to which one Listener can listen
	eventsPerRound  = 1000 // of all histories together
	minPerHistory   = 10   // of each
	eventsPerBuffer = 1024 // of a Listener
)

// followers are those of an Allocator, by pool. There is one while somebody listens.
type followers struct {
	mu sync.Mutex
	of map[string]*follower
}

// follower reads the histories of a pool.
type follower struct {
	a    *Allocator
	keys keyspace.Pool

	mu        sync.Mutex // never held while Redis is asked
	listeners map[*Listener]struct{}
	positions map[string]eventID // of each service that is read: up to this id its events were handed out
	removed   map[string]bool    // a service whose last event was that it was removed
	listed    time.Time          // Redis's, before the services were last listed; zero unless a Listener listens to all
}

// follow registers a Listener, which from now on is handed what the follower reads.
func (a *Allocator) follow(pool string, l *Listener) *follower {
	a.followers.mu.Lock()
	defer a.followers.mu.Unlock()
	f := a.followers.of[pool]
	if f == nil {
		f = &follower{
			a: a, keys: a.keys.Pool(pool), listeners: map[*Listener]struct{}{}, positions: map[string]eventID{}, removed: map[string]bool{},
		}
		if a.followers.of == nil {
			a.followers.of = map[string]*follower{}
		}
		a.followers.of[pool] = f
		go f.run(pool)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners[l] = struct{}{}
	return f
}

// goesOn reports whether anybody listens. If not, the follower is forgotten.
func (f *follower) goesOn(pool string) bool {
	f.a.followers.mu.Lock()
	defer f.a.followers.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.listeners) == 0 {
		delete(f.a.followers.of, pool)
	}
	return len(f.listeners) > 0
}

func (f *follower) leave(l *Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listeners, l)
}

// run reads until nobody listens.
func (f *follower) run(pool string) {
	ctx := context.Background()
	waiter := f.a.executor.Waiter(string(f.keys))
	defer waiter.Close()
	var held, checked time.Time // since when events are held back, and when the positions were checked
	for f.goesOn(pool) {
		began := time.Now()
		if began.Sub(checked) > checkInterval {
			if f.check(ctx) != nil {
				time.Sleep(errorPause)
				continue
			}
			checked = began
		}
		r, err := f.round(ctx, held.IsZero() || began.Sub(held) < holdBack)
		switch {
		case err != nil:
			checked = time.Time{} // what answers next may be another state
			time.Sleep(errorPause)
			continue
		case r.withheld && held.IsZero():
			held = began
		case !r.withheld:
			held = time.Time{}
		}
		took := time.Since(began)
		if !r.withheld && !r.isPart {
			f.wait(ctx, waiter)
		}
		time.Sleep(min(max(minPause, pauseFactor*took), maxPause))
	}
}

// wait returns when there may be something to read.
func (f *follower) wait(ctx context.Context, waiter *executor.Waiter) {
	positions, _ := f.wanted()
	if len(positions) == 0 {
		time.Sleep(waitForEvents)
		return
	}
	services, after := split(positions)
	waiter.Wait(ctx, eventKeys(f.keys, services), after, waitForEvents)
}

// round reads once and hands out what is found.
func (f *follower) round(ctx context.Context, hold bool) (r readEvents, err error) {
	positions, all := f.wanted()
	if r, err = f.a.readEvents(ctx, f.keys, positions, all, hold); err != nil {
		return r, err
	}
	had := map[string]eventID{}
	for _, e := range r.events {
		had[e.Service] = positions[e.Service]
	}
	if lost, err := f.lost(ctx, had); err != nil || len(lost) > 0 {
		r.isPart = true // the rest is read once more
		return r, cmp.Or(err, f.reset(ctx, lost))
	}
	f.mu.Lock()
	if all && f.addServices(&r) {
		r.isPart = true // the events of a new service may come before those that were read
		f.mu.Unlock()
		return r, nil
	}
	f.handOut(r.events)
	var lost []string
	if all && !r.withheld && !r.isPart && len(r.services) <= maxFollowed {
		lost = f.dropServices(r.services)
	}
	f.mu.Unlock()
	return r, f.reset(ctx, lost)
}

// wanted returns from where the histories are to be read to which somebody listens, and whether somebody listens to all.
func (f *follower) wanted() (positions map[string]eventID, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	single := map[string]bool{}
	for l := range f.listeners {
		single[l.service] = true
		all = all || l.service == "" && l.placed
	}
	if !all {
		f.listed = time.Time{}
		maps.DeleteFunc(f.positions, func(service string, _ eventID) bool { return !single[service] })
	}
	return maps.Clone(f.positions), all
}

// addServices adds services that a reading has listed for the first time, and reports whether there are any. They are read from the
// time at which they were not listed yet. The caller holds the lock.
func (f *follower) addServices(r *readEvents) (isNews bool) {
	if len(r.services) > maxFollowed {
		for l := range f.listeners {
			if l.service == "" {
				l.end(tooManyServices())
			}
		}
		return false
	}
	for _, service := range r.services {
		if _, ok := f.positions[service]; !ok {
			f.positions[service], isNews = f.unlistedAt(), true
		}
	}
	f.listed = r.now
	return isNews
}

// unlistedAt is where the history of a service is read on that is not read yet, though somebody listens to all.
func (f *follower) unlistedAt() eventID { return eventID{ms: milli(f.listed)}.before() }

// dropServices drops services that are not listed any more, after all their events were handed out. The last must have been that the
// service was removed: it returns those of which it was not. The caller holds the lock.
func (f *follower) dropServices(listed []string) (lost []string) {
	gone := maps.Clone(f.positions)
	for _, service := range listed {
		delete(gone, service)
	}
	for l := range f.listeners {
		delete(gone, l.service)
	}
	for service := range gone {
		if !f.removed[service] {
			lost = append(lost, service)
		}
		delete(f.positions, service)
		delete(f.removed, service)
	}
	return lost
}

// handOut gives events to the Listeners whom they concern. The caller holds the lock.
func (f *follower) handOut(events []Event) {
	for _, e := range events {
		if e.id.after(f.positions[e.Service]) {
			f.positions[e.Service] = e.id
		}
		f.removed[e.Service] = e.Kind == EventRemoved
	}
	for l := range f.listeners {
		l.hear(events...)
	}
}

// check finds histories that have no longer what was handed out of them: the state is an older one, or another. A round finds it for
// those that have news.
func (f *follower) check(ctx context.Context) error {
	if err := f.a.epoch.Open(ctx); err != nil {
		return translate(err)
	}
	positions, _ := f.wanted()
	lost, err := f.lost(ctx, positions)
	return cmp.Or(err, f.reset(ctx, lost))
}

// lost returns the services of which the event at a position is not there any more.
func (f *follower) lost(ctx context.Context, positions map[string]eventID) (lost []string, err error) {
	maps.DeleteFunc(positions, func(_ string, at eventID) bool { return !at.isEntry() })
	services, ids := split(positions)
	found, err := f.a.executor.At(ctx, string(f.keys), eventKeys(f.keys, services), ids)
	for i, entry := range found {
		if entry.ID == "" {
			lost = append(lost, services[i])
		}
	}
	return lost, translate(err)
}

// reset goes on after the newest event of each history that is lost, and tells those who listen to it.
func (f *follower) reset(ctx context.Context, lost []string) error {
	if len(lost) == 0 {
		return nil
	}
	positions, _ := f.wanted()
	for _, service := range lost {
		positions[service] = eventID{}
	}
	services, _ := split(positions)
	newest, err := f.a.newestEvents(ctx, f.keys, services)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, service := range lost {
		if _, ok := f.positions[service]; ok {
			f.positions[service] = newest[service]
		}
	}
	for l := range f.listeners {
		switch {
		case l.service == "":
			l.hear(Event{Kind: EventReset}.at(highest(newest)))
		case slices.Contains(lost, l.service):
			l.hear(Event{Kind: EventReset, Service: l.service}.at(newest[l.service]))
		}
	}
	return nil
}
