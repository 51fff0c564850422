package handlers

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// lookEvery is how often a call that waits in line looks whether its client is still there.
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
	text := c.Query("wait")
	parse := time.ParseDuration
	if strings.Trim(text, "0123456789.") == "" {
		parse = seconds
	}
	wait, err := parse(text)
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
	ctx, end := context.WithCancelCause(s.open)
	conn := c.Context().Conn()
	go watch(ctx, conn, end)
	return wanted{ctx, conn, end}, func() { end(nil) }
}

// wanted is the context of a call that waits. Who asks for its error, as the allocator does before and after it takes a
// port, gets to know whether the client is there at that moment.
type wanted struct {
	context.Context
	conn net.Conn
	end  context.CancelCauseFunc
}

// Err is that of the context, once it has looked.
func (w wanted) Err() error {
	if w.Context.Err() == nil && hungUp(w.conn) {
		w.end(errHungUp)
	}
	return w.Context.Err()
}

// watch ends a context when the client at the other end of conn hangs up.
func watch(ctx context.Context, conn net.Conn, end context.CancelCauseFunc) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			if hungUp(conn) {
				end(errHungUp)
				return
			}
		}
	}
}

// hungUp reports whether the other end has closed a connection. It leaves what may have come in to who reads next; and it
// looks past the connection's own Read, which fails once the time for the request to arrive is over.
func hungUp(conn net.Conn) (gone bool) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return gone || err != nil
}
