package allocator

import (
	"context"
	"slices"
	"sync"
	"time"

	"portmaster/lua"
)

// The line of a service: calls that wait for a port, in the order in which they came, whatever server they came to. It is
// in Redis, and who is the first there is served first. lua/line.lua says for whom there are ports. Each server asks that
// again and again, and wakes those of its calls: they ask for their ports once more, and until those before them have theirs.

const (
	lineInterval = 10 * time.Millisecond  // how soon a call hears that a port is free
	beatInterval = 400 * time.Millisecond // how often Redis hears that a call still waits; its place is kept for 1.5 s
	askInterval  = time.Second            // how often a call with a secret of its own asks what another with that secret got
)

// waiting is the answer of a script to a call that has to wait.
const waiting = int64(0)

// lines are the calls of this server that wait, by their line and ticket. What is sent tells one to ask again.
type lines struct {
	mu sync.Mutex
	of map[lineKey]map[string]chan struct{}
}

// lineKey is the pool and the service of a line.
type lineKey struct{ pool, service string }

// waitInLine makes a call that may wait in line, and returns its answer: try makes it once, with its ticket, and stays in
// line where it is told so and has to wait. When the time is over, it is tried once more. A call that is given up, by ctx,
// has left the line when this returns; one that is tried is not cut short, so that it is known what it got.
func (a *Allocator) waitInLine(ctx context.Context, ask ask, try func(ctx context.Context, ticket string, stay bool) (any, error)) (answer any, err error) {
	ticket := newTicket(ask.wants)
	over := time.NewTimer(ask.wait)
	defer over.Stop()
	soon := time.NewTimer(ask.wait) // when a call that was woken asks again
	soon.Stop()
	defer soon.Stop()
	tryNow := func(stay bool) (any, error) {
		if isGone(ctx) {
			return nil, givenUp(ctx)
		}
		return try(context.WithoutCancel(ctx), ticket, stay)
	}
	if answer, err = tryNow(true); answer != waiting || err != nil {
		return answer, err
	}
	key := lineKey{ask.pool, ask.service}
	turn := a.lines.enter(a, key, ticket)
	defer func() {
		a.lines.leave(key, ticket)
		if answer == waiting || err != nil {
			a.leaveLine(ctx, key, ticket)
		}
	}()
	var asks <-chan time.Time
	if slices.ContainsFunc(ask.wants, func(w Want) bool { return !w.drawn }) {
		ticker := time.NewTicker(askInterval)
		defer ticker.Stop()
		asks = ticker.C
	}
	for pause := time.Duration(0); ; {
		select {
		case <-turn:
			pause = time.Millisecond
		case <-soon.C:
			pause *= 2
		case <-asks:
			pause = 0
		case <-over.C:
			answer, err = tryNow(false)
			return answer, err
		case <-ctx.Done():
			return nil, givenUp(ctx)
		}
		if answer, err = tryNow(true); answer != waiting || err != nil {
			return answer, err
		}
		if pause > 0 && pause < lineInterval { // those before it are about to be served: it is next
			soon.Reset(pause)
		}
	}
}

// isGone reports whether the caller is gone. One that is to be told an error, since the server shuts down, is still there.
func isGone(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	_, told := context.Cause(ctx).(*Error)
	return !told
}

// givenUp is the error of a call that stopped waiting, by what made it stop.
func givenUp(ctx context.Context) error {
	cause := context.Cause(ctx)
	if known, ok := cause.(*Error); ok {
		return known
	}
	return unavailable("the call was given up while it waited in line", cause)
}

// leaveLine gives up a place. Where Redis does not hear of it, the place is lost within 1.5 s.
func (a *Allocator) leaveLine(ctx context.Context, key lineKey, ticket string) {
	k := a.keys(key.pool)
	_, _ = a.door.run(context.WithoutCancel(ctx), 0, k, lua.Leave,
		[]string{k.service(key.service), k.line(key.service), k.beats(key.service)}, []any{ticket})
}

// enter lets a call of this server wait to be woken. The first in a line starts to watch it.
func (l *lines) enter(a *Allocator, key lineKey, ticket string) (turn <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[lineKey]map[string]chan struct{}{}
	}
	if l.of[key] == nil {
		l.of[key] = map[string]chan struct{}{}
		go a.watchLine(key)
	}
	call := make(chan struct{}, 1)
	l.of[key][ticket] = call
	return call
}

// leave lets a call be woken no more.
func (l *lines) leave(key lineKey, ticket string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of[key], ticket)
}

// tickets returns those of this server's calls in a line; none, and the line is watched no more, where all have left.
func (l *lines) tickets(key lineKey) (tickets []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ticket := range l.of[key] {
		tickets = append(tickets, ticket)
	}
	if len(tickets) == 0 {
		delete(l.of, key)
	}
	return tickets
}

// wake tells a call to ask again, if it is one of this server's.
func (l *lines) wake(key lineKey, ticket string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.of[key][ticket] <- struct{}{}:
	default: // it is told already, or waits elsewhere
	}
}

// beatsPerCall is how many places one script keeps.
const beatsPerCall = 1000

// watchLine looks at a line until no call of this server waits in it: it keeps their places, and wakes those whose turn it
// is. While Redis is away all wait; whose place is lost by then asks again, and is the last in line.
func (a *Allocator) watchLine(key lineKey) {
	ticker := time.NewTicker(lineInterval)
	defer ticker.Stop()
	var beat time.Time
	for {
		tickets := a.lines.tickets(key)
		if len(tickets) == 0 {
			return
		}
		if now := time.Now(); now.Sub(beat) >= beatInterval {
			beat = now
			for some := range slices.Chunk(tickets, beatsPerCall) {
				a.lookAtLine(key, some)
			}
		} else {
			a.lookAtLine(key, nil)
		}
		<-ticker.C
	}
}

// lookAtLine keeps the places of some calls, and wakes those of this server that should ask again.
func (a *Allocator) lookAtLine(key lineKey, tickets []any) {
	k := a.keys(key.pool)
	answer, _ := a.door.run(context.Background(), 0, k, lua.Line, []string{k.service(key.service), k.free(key.service),
		k.ports(key.service), k.leases(key.service), k.line(key.service), k.beats(key.service)}, tickets)
	called, _ := answer.([]any)
	for _, ticket := range called {
		a.lines.wake(key, ticket.(string))
	}
}
