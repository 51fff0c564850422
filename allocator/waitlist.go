package allocator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

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
	_, err := a.door.run(context.WithoutCancel(ctx), 0, k, lua.Leave, k.ofLine(key.service), []any{key.service, ticket})
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
		jobs = append(jobs, job{k, lua.Beat, []string{k.beats(), k.lines()}, []any{a.waitlist.server}})
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
			keys, jobs = append(keys, key), append(jobs, job{k, lua.Line, k.ofLine(key.service), args})
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

// listen hears messages of waitlist.lua. It connects again by itself, and then looks at all lines, since it may have missed
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
