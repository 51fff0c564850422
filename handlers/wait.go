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

// errHungUp is why a call stopped waiting whose client is gone.
var errHungUp = errors.New("the client hung up")

// How figures tell a call whose client hung up from one that failed: the status is the one that load balancers count it by.
const (
	statusHungUp = 499
	codeHungUp   = "HUNG_UP"
)

// shuttingDown is why a call stopped waiting when the server drains.
var shuttingDown = &allocator.Error{Code: allocator.CodeUnavailable, Detail: "the server is shutting down", RetryAfter: time.Second}

// waits reports whether a request says how long it would wait in line.
func waits(c *fiber.Ctx) bool { return c.Context().QueryArgs().Has("wait") }

// patience reads how long a request would wait in line: not at all where it does not say.
func patience(c *fiber.Ctx) (time.Duration, error) {
	if !waits(c) {
		return 0, nil
	}
	wait, err := parseWait(c.Query("wait"))
	if err != nil {
		return 0, allocator.Invalid(allocator.FieldError{Field: "wait", Detail: "must be seconds, such as 30 or 1.5, or a duration, such as 1m30s"})
	}
	return wait, nil
}

// whileWanted returns the context of a call that would wait for so long. It ends when the client hangs up, or the server
// drains; its cause says which. A call that does not wait is over too soon to be worth a look.
func (s *Server) whileWanted(c *fiber.Ctx, wait time.Duration) (ctx context.Context, stop func()) {
	if wait <= 0 {
		return c.UserContext(), func() {}
	}
	stood := new(time.Duration)
	c.Locals(waitedKey{}, stood)
	ctx, end := context.WithCancelCause(allocator.WithWaited(s.open, stood))
	socket, err := socketOf(c.Context().Conn())
	if err != nil { // there is none to look at
		return ctx, func() { end(nil) }
	}
	call := &wanted{ctx, socket, end}
	s.absence.enter(call)
	return call, func() {
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

// wanted is the context of a call that waits. Who asks for its error, as the allocator does before and after it takes a
// port, gets to know whether the client is there at that moment.
type wanted struct {
	context.Context
	socket int
	end    context.CancelCauseFunc
}

// Err is that of the context, once it has looked.
func (w *wanted) Err() error {
	if w.Context.Err() == nil && closed([]int{w.socket})[0] {
		w.end(errHungUp)
	}
	return w.Context.Err()
}

// absence notices who hangs up among those that wait: one goroutine looks at all of their connections, while there are any.
type absence struct {
	mu    sync.Mutex // while it is held no call ends, and so no socket becomes another connection's
	calls map[*wanted]struct{}
}

func (a *absence) enter(call *wanted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls = map[*wanted]struct{}{}
		go a.watch()
	}
	a.calls[call] = struct{}{}
}

func (a *absence) leave(call *wanted) {
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
			calls[i].end(errHungUp)
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
