package allocator

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// How this server hears that a call on a waitlist is next: by messages of parts/waitlist.lua, and by its heartbeats if one got lost.

// expect has a waitlist looked at when the next port becomes free by itself: after next, or not at all if that is negative. The
// caller holds the lock.
func (a *Allocator) expect(l *localWaitlist, key waitlistKey, next time.Duration) {
	if l.next != nil {
		l.next.Stop()
	}
	if l.next = nil; next >= 0 {
		l.next = time.AfterFunc(next, func() { a.lookAtWaitlists(map[waitlistKey][]string{key: nil}) })
	}
}

// expectIn is expect by a caller that does not hold the lock.
func (a *Allocator) expectIn(key waitlistKey, next time.Duration) {
	a.waitlist.mu.Lock()
	defer a.waitlist.mu.Unlock()
	if l := a.waitlist.waitlists[key]; l != nil {
		a.expect(l, key, next)
	}
}

// news is what a message, or a look, reports of a waitlist.
type news struct {
	next    time.Duration // until a port becomes free by itself; negative if none does
	size    int           // how many ports the service has
	tickets []string      // of calls that should try again
}

// hear wakes calls of this server after news of their waitlist: the calls that are next, and those that wait for more ports than the
// service has. A ticket of this server that it does not know belongs to a call that could not leave the waitlist: it leaves now.
func (a *Allocator) hear(key waitlistKey, n news) {
	a.waitlist.mu.Lock()
	defer a.waitlist.mu.Unlock()
	w := &a.waitlist
	for _, ticket := range n.tickets {
		if strings.HasPrefix(ticket, w.server+"-") && !w.known[ticket] {
			w.known[ticket] = true
			go func() {
				defer w.forget(ticket)
				_ = a.leaveWaitlist(context.Background(), key, ticket)
			}()
		}
	}
	l := w.waitlists[key]
	if l == nil {
		return
	}
	for _, ticket := range n.tickets {
		l.calls[ticket].wake()
	}
	if n.size != l.size {
		l.size = n.size
		for _, call := range l.calls {
			if call.ports > n.size {
				call.wake()
			}
		}
	}
	a.expect(l, key, n.next)
}

func (c waitingCall) wake() {
	select {
	case c.turn <- struct{}{}:
	default: // it was woken already, or is no call of this server
	}
}

// here returns the tickets of this server by waitlist.
func (w *waitlist) here() map[waitlistKey][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[waitlistKey][]string, len(w.waitlists))
	for key, l := range w.waitlists {
		for ticket := range l.calls {
			all[key] = append(all[key], ticket)
		}
	}
	return all
}

// leaving returns the tickets that could not leave.
func (w *waitlist) leaving() map[string]waitlistKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.stuck)
}

// stops reports whether no call waits any more, which ends watchWaitlists.
func (w *waitlist) stops() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = len(w.waitlists) > 0
	return !w.runs
}

// watchWaitlists listens for messages and sends heartbeats while calls of this server wait.
func (a *Allocator) watchWaitlists() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go a.listen(ctx)
	ticker := time.NewTicker(heartbeatInterval)
	defer ticker.Stop()
	for beat := 0; ; beat++ {
		if a.waitlist.stops() {
			return
		}
		waitlists := a.waitlist.here()
		a.heartbeat(waitlists)
		for ticket, key := range a.waitlist.leaving() {
			if a.leaveWaitlist(ctx, key, ticket) != nil {
				break // the next time, if Redis is back
			}
		}
		if beat%lookInterval == lookInterval-1 {
			a.lookAtWaitlists(waitlists)
		}
		<-ticker.C
	}
}

// heartbeat keeps the positions of this server in all pools, and looks at waitlists of which it should have heard. If Redis has not
// heard of this server for long, its positions may be lost: it looks, and the calls that lost theirs try again and join at the end.
func (a *Allocator) heartbeat(waitlists map[waitlistKey][]string) {
	of := map[string][]waitlistKey{}
	for key := range waitlists {
		of[key.pool] = append(of[key.pool], key)
	}
	pools, calls := slices.Collect(maps.Keys(of)), make([]executor.Call, 0, len(of))
	for _, pool := range pools {
		k := a.keys.Pool(pool)
		calls = append(calls, k.Call(lua.Heartbeat, "", "", a.waitlist.server))
	}
	due := map[waitlistKey][]string{}
	for i, r := range a.runAll(context.Background(), calls, callsPerBatch) {
		parts, _ := r.Answer.([]any)
		if r.Err != nil || len(parts) == 0 {
			continue
		}
		for _, service := range parts[1:] {
			due[waitlistKey{pools[i], service.(string)}] = nil
		}
		if parts[0] == int64(0) {
			for _, key := range of[pools[i]] {
				due[key] = waitlists[key]
			}
		}
	}
	a.lookAtWaitlists(due)
}

// lookAtWaitlists asks which calls are next on some waitlists, and which of the given tickets are not on them.
func (a *Allocator) lookAtWaitlists(waitlists map[waitlistKey][]string) {
	var keys []waitlistKey
	var calls []executor.Call
	for key, tickets := range waitlists {
		k := a.keys.Pool(key.pool)
		for first := 0; first == 0 || first < len(tickets); first += ticketsPerLook {
			args := []any{key.service}
			for _, ticket := range tickets[first:min(first+ticketsPerLook, len(tickets))] {
				args = append(args, ticket)
			}
			keys, calls = append(keys, key), append(calls, k.Call(lua.CheckWaitlist, key.service, "", args...))
		}
	}
	for i, r := range a.runAll(context.Background(), calls, callsPerBatch) {
		if r.Err == nil {
			a.hear(keys[i], newsOf(r.Answer))
		}
	}
}

// newsOf reads the answer of check_waitlist.lua.
func newsOf(answer any) (n news) {
	parts, _ := answer.([]any)
	if len(parts) < 2 {
		return news{next: -1}
	}
	ms, _ := toInt(parts[0])
	size, _ := toInt(parts[1])
	n = news{next: time.Duration(ms) * time.Millisecond, size: int(size)}
	for _, ticket := range parts[2:] {
		n.tickets = append(n.tickets, ticket.(string))
	}
	return n
}

// listen receives the messages of parts/waitlist.lua. Each time that it is connected it looks at all waitlists, since it may have
// missed messages.
func (a *Allocator) listen(ctx context.Context) {
	joined := func() { go a.lookAtWaitlists(a.waitlist.here()) }
	a.executor.Listen(ctx, a.keys.Turns(), joined, func(message string) {
		if key, n, ok := parseNews(message); ok {
			a.hear(key, n)
		}
	})
}

// parseNews reads a message: pool, service, ms until a port becomes free by itself, how many ports there are, and tickets.
func parseNews(message string) (key waitlistKey, n news, ok bool) {
	words := strings.Fields(message)
	if len(words) < 4 {
		return key, n, false
	}
	ms, err1 := strconv.ParseInt(words[2], 10, 64)
	size, err2 := strconv.Atoi(words[3])
	return waitlistKey{words[0], words[1]}, news{time.Duration(ms) * time.Millisecond, size, words[4:]}, errors.Join(err1, err2) == nil
}
