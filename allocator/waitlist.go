package allocator

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// The waitlist of this server: its calls that wait for a port. The waitlist of a service is in Redis, and holds the calls of
// all servers in the order in which they came. The servers do not poll: the script that frees a port sends a message with the tickets
// of the calls that are next, and their servers wake them. Each message, and each answer to a call that has to wait, says when the
// next port becomes free by itself. The heartbeat of a server, which keeps the positions of all its calls in a pool, also finds
// what a lost message would have said.

const (
	heartbeatInterval = 500 * time.Millisecond // how often Redis hears of this server; its positions are kept for 1.5 s
	lookInterval      = 10                     // after how many heartbeats a waitlist is looked at without a message
	repeatInterval    = time.Second            // how often a call asks what another with its secret, or its name, got
	retryPause        = 100 * time.Millisecond // after what time a waiting call is tried again that Redis did not answer

	ticketsPerLook = 250 // of one script
)

// waitlist is the calls of this server that wait, by their service and ticket.
type waitlist struct {
	server string // the id of this server in tickets

	mu        sync.Mutex
	number    int                    // of the last ticket
	known     map[string]bool        // the tickets of calls that wait, may begin to wait, or are leaving
	stuck     map[string]waitlistKey // tickets that could not leave, since Redis did not answer
	waitlists map[waitlistKey]*localWaitlist
	runs      bool
}

// waitlistKey is the pool and the service of a waitlist.
type waitlistKey struct{ pool, service string }

// localWaitlist is what this server knows of a waitlist that has some of its calls.
type localWaitlist struct {
	calls map[string]waitingCall // by ticket
	size  int                    // how many ports the service has, as last reported
	next  *time.Timer            // until the next port becomes free by itself
}

// waitingCall is a call that waits for some ports. A message on turn tells it to try again.
type waitingCall struct {
	ports int
	turn  chan struct{}
}

func newWaitlist() waitlist {
	return waitlist{
		server:    strings.ReplaceAll(uuid.NewString(), "-", "")[:16],
		known:     map[string]bool{},
		stuck:     map[string]waitlistKey{},
		waitlists: map[waitlistKey]*localWaitlist{},
	}
}

// acquireWaiting acquires ports for a call that may wait. When its time is over, it is tried once more. A call that is given up has
// left the waitlist when this returns. A try is not cut short, so that it is known what it got.
func (a *Allocator) acquireWaiting(ctx context.Context, c acquisition) (answer any, err error) {
	ticket, ok := a.waitlist.ticket(c.requests, a.opts.MaxWaiting)
	if !ok {
		return a.dontWait(ctx, c, ticket)
	}
	defer a.waitlist.forget(ticket)
	if cause := c.wait.givenUp(ctx); isGone(cause) {
		return nil, errGivenUp(cause)
	}
	key := waitlistKey{c.pool, c.service}
	answer, err = a.try(context.WithoutCancel(ctx), c, ticket, true)
	if errors.Is(err, ErrOutcomeUnknown) { // it may have joined the waitlist
		_ = a.leaveWaitlist(ctx, key, ticket)
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
			_ = a.leaveWaitlist(ctx, key, ticket)
		}
	}()
	return a.awaitTurn(ctx, c, key, ticket, turn)
}

// awaitTurn tries a call each time that its turn may have come.
func (a *Allocator) awaitTurn(ctx context.Context, c acquisition, key waitlistKey, ticket string, turn <-chan struct{}) (
	answer any, err error,
) {
	over := time.NewTimer(c.wait.Longest)
	defer over.Stop()
	again := time.NewTimer(repeatInterval)
	defer again.Stop()
	mayBeMet := slices.ContainsFunc(c.requests, func(r Request) bool { return !r.generated || r.Existing }) // by another call
	if !mayBeMet {
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
		if c.wait.Stood != nil {
			*c.wait.Stood = time.Since(joined)
		}
		if cause := c.wait.givenUp(ctx); cause != nil {
			if errors.Is(err, ErrOutcomeUnknown) {
				a.giveBack(context.WithoutCancel(ctx), c, slices.Repeat([]grant{{created: true}}, len(c.requests))) // what it may have got
			}
			return nil, errGivenUp(cause)
		}
		answer, err = a.try(context.WithoutCancel(ctx), c, ticket, stay)
		wait, waits := waitingFor(answer)
		switch {
		case stay && err != nil && isPassing(err): // its secrets make it the same call when it is made again
			again.Reset(retryPause)
		case err != nil || !waits:
			return answer, err
		default:
			a.expectIn(key, wait)
			if mayBeMet {
				again.Reset(repeatInterval)
			}
		}
	}
}

// dontWait makes a call that cannot wait, since too many calls of this server do: it gets ports only if they are free.
func (a *Allocator) dontWait(ctx context.Context, c acquisition, ticket string) (any, error) {
	answer, err := a.try(ctx, c, ticket, false)
	if errors.Is(err, ErrExhausted) {
		return nil, &Error{Code: CodeTooManyWaiting, Detail: "every port is taken, and " + strconv.Itoa(a.opts.MaxWaiting) +
			" calls wait on this server already", RetryAfter: retryAfter}
	}
	return answer, err
}

// waitingFor reads the answer of a script: whether the call has to wait, and after what time a port becomes free by itself, -1 if
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

// isPassing reports whether an error may be over soon, since Redis was away.
func isPassing(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown)
}

// leaveWaitlist gives up a position. If Redis does not answer, the next heartbeats do it again.
func (a *Allocator) leaveWaitlist(ctx context.Context, key waitlistKey, ticket string) error {
	k := a.keys.Pool(key.pool)
	leave := k.Call(lua.LeaveWaitlist, key.service, "", key.service, ticket)
	err := a.runAll(context.WithoutCancel(ctx), []executor.Call{leave}, 1)[0].Err // it may be repeated, and waits for no replica
	a.waitlist.mu.Lock()
	defer a.waitlist.mu.Unlock()
	if delete(a.waitlist.stuck, ticket); err != nil {
		a.waitlist.stuck[ticket] = key
	}
	return err
}

// ticket makes the ticket of a call that may wait. ok is false if the maximum of calls waits already. If it is true, forget must be called when the call ends.
func (w *waitlist) ticket(requests []Request, most int) (ticket string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number++
	ticket = ticketOf(w.server, w.number, requests)
	if ok = len(w.known) < most; ok {
		w.known[ticket] = true
	}
	return ticket, ok
}

// rowsOf lists how many ports in a row are requested, in the order in which they are picked: "4.2x4.1" for a block of 4, one of 2 that
// begins at a multiple of 4, and single ports.
func rowsOf(requests []Request) string {
	requests = slices.Clone(requests)
	slices.SortFunc(requests, func(a, b Request) int {
		return cmp.Or(cmp.Compare(b.count(), a.count()), cmp.Compare(valueOf(b.Align), valueOf(a.Align)))
	})
	var rows []string
	for _, r := range requests {
		row := strconv.Itoa(r.count())
		if r.Align != nil {
			row += "x" + strconv.Itoa(*r.Align)
		}
		if row != "1" || !slices.Contains(rows, "1") {
			rows = append(rows, row)
		}
	}
	return strings.Join(rows, ".")
}

func (w *waitlist) forget(ticket string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, ticket)
}

// portsOf returns how many ports the call of a ticket waits for.
func portsOf(ticket string) int {
	parts := strings.Split(ticket, "/")
	ports, _ := strconv.Atoi(parts[len(parts)-2])
	return ports
}

// enter registers a call that waits to be woken.
func (w *waitlist) enter(a *Allocator, key waitlistKey, ticket string) (turn <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waitlists[key] == nil {
		w.waitlists[key] = &localWaitlist{calls: map[string]waitingCall{}}
	}
	call := waitingCall{portsOf(ticket), make(chan struct{}, 1)}
	w.waitlists[key].calls[ticket] = call
	if !w.runs {
		w.runs = true
		go a.watchWaitlists()
	}
	return call.turn
}

// leave removes a call that entered.
func (w *waitlist) leave(key waitlistKey, ticket string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.waitlists[key]
	delete(l.calls, ticket)
	if len(l.calls) == 0 {
		if l.next != nil {
			l.next.Stop()
		}
		delete(w.waitlists, key)
	}
}
