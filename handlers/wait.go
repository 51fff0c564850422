package handlers

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// lookEvery is how often the server looks whether the clients of calls that wait in line are still there.
const lookEvery = 250 * time.Millisecond

// How figures tell a call whose client hung up from one that failed: the status is the one that load balancers count it by.
const (
	statusHungUp = 499
	codeHungUp   = "HUNG_UP"
)

// waits reports whether a request says how long it would wait in line.
func waits(c *fiber.Ctx) bool { return c.Context().QueryArgs().Has("wait") }

// parseWait reads how long a request may wait in line: not at all if it does not say.
func parseWait(c *fiber.Ctx) (time.Duration, error) {
	if !waits(c) {
		return 0, nil
	}
	wait, err := parseSeconds(c.Query("wait"))
	if err != nil {
		return 0, allocator.Invalid(allocator.FieldError{Field: "wait", Detail: "must be seconds, such as 30 or 1.5, or a duration, such as 1m30s"})
	}
	return wait, nil
}

// whileWanted returns the context of a call that may wait in line. It ends when the client hangs up, or the server drains; its cause
// says which. It tells the call how to look for the client, and the request for how long the call stood in line. A call that does not
// wait is over too soon to be worth a look.
func (s *Server) whileWanted(c *fiber.Ctx, wait *allocator.Wait) (ctx context.Context, stop func()) {
	if wait.Longest <= 0 {
		return c.UserContext(), func() {}
	}
	wait.Stood = new(time.Duration)
	c.Locals(waitedKey{}, wait.Stood)
	ctx, end := context.WithCancelCause(s.open)
	socket, err := socketOf(c.Context().Conn())
	if err != nil { // there is none to look at
		return ctx, func() { end(nil) }
	}
	wait.Abandoned = func() bool { return closed([]int{socket})[0] }
	call := &waitingCall{socket, end}
	s.absence.enter(call)
	return ctx, func() {
		s.absence.leave(call)
		end(nil)
	}
}

// waitedKey is where a request keeps for how long its call stood in line.
type waitedKey struct{}

// waited returns for how long the call of a request stood in line.
func waited(c *fiber.Ctx) time.Duration {
	if stood, ok := c.Locals(waitedKey{}).(*time.Duration); ok {
		return *stood
	}
	return 0
}

// waitingCall is a call that waits in line, and the socket of its client.
type waitingCall struct {
	socket int
	end    context.CancelCauseFunc
}

// absence notices who hangs up among those that wait: one goroutine looks at all of their connections, while there are any.
type absence struct {
	mu    sync.Mutex // while it is held no call ends, and so no socket becomes another connection's
	calls map[*waitingCall]struct{}
}

func (a *absence) enter(call *waitingCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls = map[*waitingCall]struct{}{}
		go a.watch()
	}
	a.calls[call] = struct{}{}
}

func (a *absence) leave(call *waitingCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, call)
}

func (a *absence) watch() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for range ticker.C {
		if !a.look() {
			return
		}
	}
}

// look ends the calls whose client is gone, and reports whether any waits.
func (a *absence) look() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.calls) == 0 {
		a.calls = nil // the next one to enter begins to watch again
		return false
	}
	calls := slices.Collect(maps.Keys(a.calls))
	sockets := make([]int, len(calls))
	for i, call := range calls {
		sockets[i] = call.socket
	}
	for i, gone := range closed(sockets) {
		if gone {
			calls[i].end(allocator.ErrAbandoned)
		}
	}
	return true
}

// socketOf returns the file descriptor below a connection; it looks through what is on top, such as TLS.
func socketOf(conn net.Conn) (socket int, err error) {
	for {
		if c, ok := conn.(syscall.Conn); ok {
			raw, err := c.SyscallConn()
			if err != nil {
				return 0, err
			}
			err = raw.Control(func(fd uintptr) { socket = int(fd) })
			return socket, err
		}
		upper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return 0, errors.ErrUnsupported
		}
		conn = upper.NetConn()
	}
}
