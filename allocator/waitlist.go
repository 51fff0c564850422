package allocator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"portmaster/lua"
)

// The waitlist of this server: its calls that wait in line for a port. The line of a service is in Redis, and holds the calls of
// all servers in the order in which they came. Nothing is asked again and again: the script that frees a port sends a message
// with the tickets whose turn it is, and the servers wake those of their calls. Each message, and each answer to a call that has
// to wait, tells when the next port comes free by itself. A message that got lost is made up for at the next heartbeat, which
// also keeps the places of all calls of this server in a pool.

const (
	beatInterval = 500 * time.Millisecond // how often Redis hears of this server; its places are kept for 1.5 s
	lookInterval = 10                     // beats; how often a line is looked at although there was no word of it
	askInterval  = time.Second            // how often a call with a secret of its own asks what another with that secret got
	retryPause   = 100 * time.Millisecond // until a call in line is tried again that Redis did not answer

	ticketsPerLook = 250 // of one script
)

// waitlist is the calls of this server that wait, by their line and ticket.
type waitlist struct {
	server string // the id of this server in tickets

	mu     sync.Mutex
	number int                // of the last ticket
	known  map[string]bool    // the tickets of calls that wait, or may come to, and of those that are leaving
	stuck  map[string]lineKey // tickets that could not leave, since Redis did not hear of it
	lines  map[lineKey]*line
	runs   bool
}

// lineKey is the pool and the service of a line.
type lineKey struct{ pool, service string }

// line is what this server knows of a line in which some of its calls wait.
type line struct {
	calls map[string]waitingCall // by ticket
	size  int                    // how many ports the service has, as last heard
	next  *time.Timer            // until the next port comes free by itself
}

// waitingCall is a call that waits for so many ports. What is sent tells it to ask again.
type waitingCall struct {
	ports int
	turn  chan struct{}
}

func newWaitlist() waitlist {
	return waitlist{server: strings.ReplaceAll(uuid.NewString(), "-", "")[:16], known: map[string]bool{}, stuck: map[string]lineKey{}, lines: map[lineKey]*line{}}
}

// try makes a call once. It stays in line where it is told so and has to wait.
type try func(ctx context.Context, ticket string, stay bool) (any, error)

// waitInLine makes a call that may wait in line, and returns its answer. When the time is over, it is tried once more. A call that
// is given up, by ctx, has left the line when this returns; one that is tried is not cut short, so that it is known what it got.
func (a *Allocator) waitInLine(ctx context.Context, ask ask, try try) (answer any, err error) {
	ticket, ok := a.waitlist.ticket(ask.wants, a.opts.MaxWaiting)
	if !ok {
		return a.dontWait(ctx, ticket, try)
	}
	defer a.waitlist.forget(ticket)
	if isGone(ctx) {
		return nil, givenUp(ctx)
	}
	key := lineKey{ask.pool, ask.service}
	answer, err = try(context.WithoutCancel(ctx), ticket, true)
	if errors.Is(err, ErrOutcomeUnknown) { // it may have joined the line
		_ = a.leaveLine(ctx, key, ticket)
	}
	wait, waits := waitingFor(answer)
	if err != nil || !waits {
		return answer, err
	}
	turn := a.waitlist.enter(a, key, ticket)
	a.expectIn(key, wait)
	defer func() {
		a.waitlist.leave(key, ticket)
		if _, waits := waitingFor(answer); waits || err != nil {
			_ = a.leaveLine(ctx, key, ticket)
		}
	}()
	return a.inLine(ctx, ask, key, turn, func(ctx context.Context, stay bool) (any, error) { return try(ctx, ticket, stay) })
}

// inLine tries a call that stands in line each time that its turn may have come.
func (a *Allocator) inLine(ctx context.Context, ask ask, key lineKey, turn <-chan struct{}, try func(context.Context, bool) (any, error)) (answer any, err error) {
	over := time.NewTimer(ask.wait)
	defer over.Stop()
	again := time.NewTimer(askInterval)
	defer again.Stop()
	ownSecret := slices.ContainsFunc(ask.wants, func(w Want) bool { return !w.drawn })
	if !ownSecret {
		again.Stop()
	}
	joined := time.Now()
	for stay := true; ; {
		select {
		case <-turn:
		case <-again.C:
		case <-over.C:
			stay = false
		case <-ctx.Done():
		}
		recordWaited(ctx, joined)
		if ctx.Err() != nil {
			if errors.Is(err, ErrOutcomeUnknown) {
				a.giveBackAll(context.WithoutCancel(ctx), ask)
			}
			return nil, givenUp(ctx)
		}
		answer, err = try(context.WithoutCancel(ctx), stay)
		wait, waits := waitingFor(answer)
		switch {
		case stay && err != nil && isPassing(err): // its secrets make it the same call when it is made again
			again.Reset(retryPause)
		case err != nil || !waits:
			return answer, err
		default:
			a.expectIn(key, wait)
			if ownSecret {
				again.Reset(askInterval)
			}
		}
	}
}

// dontWait makes a call for which there is no room in the waitlist: it may have what is free.
func (a *Allocator) dontWait(ctx context.Context, ticket string, try try) (any, error) {
	answer, err := try(ctx, ticket, false)
	if errors.Is(err, ErrExhausted) {
		return nil, &Error{Code: CodeTooManyWaiting, Detail: "every port is taken, and " + strconv.Itoa(a.opts.MaxWaiting) +
			" calls wait on this server already", RetryAfter: retryAfter}
	}
	return answer, err
}

// waitingFor reads the answer of a script: whether the call has to wait, and after what time a port comes free by itself, -1 where
// none does.
func waitingFor(answer any) (next time.Duration, waits bool) {
	ms, ok := answer.(int64)
	switch {
	case !ok || ms > 0:
		return 0, false
	case ms == 0:
		return -1, true
	}
	return time.Duration(-ms) * time.Millisecond, true
}

// isPassing reports whether an error is of Redis being away, which it may not be for long.
func isPassing(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown)
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

// leaveLine gives up a place. Where Redis does not hear of it, it is told again with the next heartbeats.
func (a *Allocator) leaveLine(ctx context.Context, key lineKey, ticket string) error {
	k := a.keys(key.pool)
	_, err := a.door.run(context.WithoutCancel(ctx), 0, k, lua.Leave, k.of(lua.Leave, key.service, ""), []any{key.service, ticket})
	a.waitlist.mu.Lock()
	defer a.waitlist.mu.Unlock()
	if delete(a.waitlist.stuck, ticket); err != nil {
		a.waitlist.stuck[ticket] = key
	}
	return err
}

// ticket names a call that may wait in line, and says how many ports it waits for, and how many of them in a row. It is not ok
// where as many wait as may. One that is ends with forget.
func (w *waitlist) ticket(wants []Want, most int) (ticket string, ok bool) {
	ports := 0
	for _, want := range wants {
		ports += want.count()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number++
	ticket = w.server + "-" + strconv.Itoa(w.number) + "/" + strconv.Itoa(ports) + "/" + rowsOf(wants)
	if ok = len(w.known) < most; ok {
		w.known[ticket] = true
	}
	return ticket, ok
}

// rowsOf says how many ports in a row are wanted, the most first: "4.2.1" for a block of 4, one of 2, and single ones.
func rowsOf(wants []Want) string {
	var rows []int
	single := false
	for _, want := range wants {
		if single = single || want.count() == 1; want.count() > 1 {
			rows = append(rows, want.count())
		}
	}
	slices.SortFunc(rows, func(a, b int) int { return b - a })
	if single {
		rows = append(rows, 1)
	}
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(rows)), "."), "[]")
}

func (w *waitlist) forget(ticket string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, ticket)
}

// portsOf is how many ports the call of a ticket waits for.
func portsOf(ticket string) int {
	parts := strings.Split(ticket, "/")
	ports, _ := strconv.Atoi(parts[len(parts)-2])
	return ports
}

// enter lets a call of this server wait to be woken.
func (w *waitlist) enter(a *Allocator, key lineKey, ticket string) (turn <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lines[key] == nil {
		w.lines[key] = &line{calls: map[string]waitingCall{}}
	}
	call := waitingCall{portsOf(ticket), make(chan struct{}, 1)}
	w.lines[key].calls[ticket] = call
	if !w.runs {
		w.runs = true
		go a.watchLines()
	}
	return call.turn
}

// leave lets a call be woken no more.
func (w *waitlist) leave(key lineKey, ticket string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lines[key]
	delete(l.calls, ticket)
	if len(l.calls) == 0 {
		if l.next != nil {
			l.next.Stop()
		}
		delete(w.lines, key)
	}
}
