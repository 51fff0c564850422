package connection

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Patient returns a listener that goes on when the system has no file descriptor left for a connection, which would end the server.
func Patient(l net.Listener) net.Listener { return patient{l} }

type patient struct{ net.Listener }

// pause is how long a server that lacks file descriptors waits for one.
const pause = 10 * time.Millisecond

// Accept implements net.Listener.
func (p patient) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ECONNABORTED) {
			return conn, err
		}
		time.Sleep(pause)
	}
}
