package allocator

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// How this server hears of its lines: by the messages of parts/waitlist.lua, and where one got lost, by its heartbeats.

// expect has a line looked at when a port comes free there by itself: after that time, or not at all where it is negative. The
// waitlist is locked.
func (a *Allocator) expect(l *line, key lineKey, next time.Duration) {
	if l.next != nil {
		l.next.Stop()
	}
	if l.next = nil; next >= 0 {
		l.next = time.AfterFunc(next, func() { a.lookAtLines(map[lineKey][]string{key: nil}) })
	}
}

// expectIn is expect for a line in which a call of this server waits.
func (a *Allocator) expectIn(key lineKey, next time.Duration) {
	a.waitlist.mu.Lock()
	defer a.waitlist.mu.Unlock()
	if l := a.waitlist.lines[key]; l != nil {
		a.expect(l, key, next)
	}
}

// news is what is heard of a line.
type news struct {
	next    time.Duration // until a port comes free by itself; negative where none does
	size    int           // how many ports the service has
	tickets []string      // of calls that should ask again
}

// hear wakes calls of this server by what is heard of their line: those whose turn it is, and those that wait for more than
// there is. Those of this server that it does not know are of calls that could not leave the line: they do now.
func (a *Allocator) hear(key lineKey, n news) {
	a.waitlist.mu.Lock()
	defer a.waitlist.mu.Unlock()
	w := &a.waitlist
	for _, ticket := range n.tickets {
		if strings.HasPrefix(ticket, w.server+"-") && !w.known[ticket] {
			w.known[ticket] = true
			go func() {
				defer w.forget(ticket)
				_ = a.leaveLine(context.Background(), key, ticket)
			}()
		}
	}
	l := w.lines[key]
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
	default: // it is told already, or waits elsewhere
	}
}

// here returns the tickets of this server by their lines.
func (w *waitlist) here() map[lineKey][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[lineKey][]string, len(w.lines))
	for key, l := range w.lines {
		for ticket := range l.calls {
			all[key] = append(all[key], ticket)
		}
	}
	return all
}

// leaving returns the tickets that could not leave.
func (w *waitlist) leaving() map[string]lineKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.stuck)
}

// stops reports whether nobody waits any more, which ends the watching.
func (w *waitlist) stops() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = len(w.lines) > 0
	return !w.runs
}

// watchLines listens to messages and sends heartbeats while calls of this server wait.
func (a *Allocator) watchLines() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go a.listen(ctx)
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for beat := 0; ; beat++ {
		if a.waitlist.stops() {
			return
		}
		lines := a.waitlist.here()
		a.beat(lines)
		for ticket, key := range a.waitlist.leaving() {
			if a.leaveLine(ctx, key, ticket) != nil {
				break // the next time, if Redis is back
			}
		}
		if beat%lookInterval == lookInterval-1 {
			a.lookAtLines(lines)
		}
		<-ticker.C
	}
}

// beat keeps the places of this server in all pools, and looks at lines of which it should have heard. Where its places may be
// lost, since Redis has not heard of it for long, it looks whether they are: those calls ask again, and are the last in line.
func (a *Allocator) beat(lines map[lineKey][]string) {
	of := map[string][]lineKey{}
	for key := range lines {
		of[key.pool] = append(of[key.pool], key)
	}
	pools, jobs := slices.Collect(maps.Keys(of)), make([]job, 0, len(of))
	for _, pool := range pools {
		k := a.keys(pool)
		jobs = append(jobs, job{k, lua.Beat, k.of(lua.Beat, "", ""), []any{a.waitlist.server}})
	}
	due := map[lineKey][]string{}
	for i, r := range a.door.runAll(context.Background(), jobs, jobsPerTrip) {
		parts, _ := r.answer.([]any)
		if r.err != nil || len(parts) == 0 {
			continue
		}
		for _, service := range parts[1:] {
			due[lineKey{pools[i], service.(string)}] = nil
		}
		if parts[0] == int64(0) {
			for _, key := range of[pools[i]] {
				due[key] = lines[key]
			}
		}
	}
	a.lookAtLines(due)
}

// lookAtLines asks whose turn it is in some lines, and which of some tickets are not in them.
func (a *Allocator) lookAtLines(lines map[lineKey][]string) {
	var keys []lineKey
	var jobs []job
	for key, tickets := range lines {
		k := a.keys(key.pool)
		for first := 0; first == 0 || first < len(tickets); first += ticketsPerLook {
			args := []any{key.service}
			for _, ticket := range tickets[first:min(first+ticketsPerLook, len(tickets))] {
				args = append(args, ticket)
			}
			keys, jobs = append(keys, key), append(jobs, job{k, lua.Line, k.of(lua.Line, key.service, ""), args})
		}
	}
	for i, r := range a.door.runAll(context.Background(), jobs, jobsPerTrip) {
		if r.err == nil {
			a.hear(keys[i], newsOf(r.answer))
		}
	}
}

// newsOf reads the answer of line.lua.
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

// listen hears messages of parts/waitlist.lua. It connects again by itself, and then looks at all lines, since it may have missed
// some.
func (a *Allocator) listen(ctx context.Context) {
	subscription := a.redis.Subscribe(ctx, a.turns())
	defer subscription.Close()
	heard := subscription.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return
		case word, ok := <-heard:
			if !ok {
				return
			}
			switch word := word.(type) {
			case *redis.Subscription:
				go a.lookAtLines(a.waitlist.here())
			case *redis.Message:
				if key, n, ok := parseNews(word.Payload); ok {
					a.hear(key, n)
				}
			}
		}
	}
}

// parseNews reads a message: pool, service, ms until a port comes free by itself, how many ports there are, and tickets.
func parseNews(message string) (key lineKey, n news, ok bool) {
	words := strings.Fields(message)
	if len(words) < 4 {
		return key, n, false
	}
	ms, err1 := strconv.ParseInt(words[2], 10, 64)
	size, err2 := strconv.Atoi(words[3])
	return lineKey{words[0], words[1]}, news{time.Duration(ms) * time.Millisecond, size, words[4:]}, errors.Join(err1, err2) == nil
}
