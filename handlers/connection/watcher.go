package connection

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Interval is how often a Watcher looks at its connections.
const Interval = 250 * time.Millisecond

// Watcher notices which of the watched connections their clients close. One goroutine looks at all of them, while there are
// any. The zero value is ready to use.
type Watcher struct {
	mu      sync.Mutex // while it is held no watch ends, and so no socket becomes another connection's
	watched map[*watched]struct{}
}

type watched struct {
	socket int
	tls    *tlsConn // nil without TLS
	onGone func()
}

// Watch calls onGone if the client closes conn before stop is called. closed looks whether it has done so already. The error
// is for a connection without a socket. Stop has to be called before conn is closed on this side.
func (w *Watcher) Watch(conn net.Conn, onGone func()) (closed func() bool, stop func(), err error) {
	socket, err := socketOf(conn)
	if err != nil {
		return nil, nil, err
	}
	overTLS, _ := conn.(*tlsConn)
	watch := &watched{socket, overTLS, onGone}
	w.enter(watch)
	return func() bool { return isClosed(socket) || watch.hasEnded() }, func() { w.leave(watch) }, nil
}

// hasEnded reports whether the client has ended TLS, though not the TCP connection.
func (w *watched) hasEnded() bool { return w.tls != nil && w.tls.hasEnded() }

func isClosed(socket int) bool { return closed([]int{socket})[0] }

func (w *Watcher) enter(watch *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched == nil {
		w.watched = map[*watched]struct{}{}
		go w.run()
	}
	w.watched[watch] = struct{}{}
}

func (w *Watcher) leave(watch *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watched, watch)
}

func (w *Watcher) run() {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for range ticker.C {
		if !w.look() {
			return
		}
	}
}

// look tells of the connections whose client is gone. It returns false if none is watched.
func (w *Watcher) look() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.watched) == 0 {
		w.watched = nil // the next one to enter starts run again
		return false
	}
	all := slices.Collect(maps.Keys(w.watched))
	sockets := make([]int, len(all))
	for i, watch := range all {
		sockets[i] = watch.socket
	}
	for i, gone := range closed(sockets) {
		if gone || all[i].hasEnded() {
			all[i].onGone()
		}
	}
	return true
}

// socketOf returns the file descriptor of a connection, or of the one below it if it is TLS.
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
