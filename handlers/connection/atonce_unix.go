//go:build unix

package connection

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// readAtOnce reads what has arrived on a connection. Deadlines do not matter. If nothing has, the error is os.ErrDeadlineExceeded.
func readAtOnce(conn net.Conn, p []byte) (n int, err error) {
	err = control(conn, func(socket int) error {
		n, err = syscall.Read(socket, p)
		if n == 0 && err == nil {
			return io.EOF
		}
		return err
	})
	return max(n, 0), err
}

// writeAtOnce writes if there is room for all of p.
func writeAtOnce(conn net.Conn, p []byte) (n int, err error) {
	err = control(conn, func(socket int) error {
		if n, err = syscall.Write(socket, p); err == nil && n < len(p) {
			return io.ErrShortWrite
		}
		return err
	})
	return max(n, 0), err
}

// control calls f with the socket of conn, which never blocks, since Go's sockets do not.
func control(conn net.Conn, f func(socket int) error) error {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return os.ErrDeadlineExceeded
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	if errors.Is(failed, syscall.EAGAIN) || errors.Is(failed, syscall.EINTR) {
		return os.ErrDeadlineExceeded
	}
	return failed
}
