// Package connection knows about the connections of a server what its HTTP library does not tell: how many there are, whether
// anything has arrived on one, and whether its client has closed it.
package connection

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"
)

// MaxSurplus is how many connections over the limit stay open to get an answer. Further ones are closed at once.
const MaxSurplus = 1000

// Limiter counts the connections of a server. It remembers those that came when the limit was reached, and those on which
// nothing has arrived yet.
type Limiter struct {
	limit  int64
	open   atomic.Int64
	silent sync.Map // net.Conn -> nil

	mu      sync.Mutex
	surplus map[net.Conn]struct{}
}

// NewLimiter returns a Limiter of so many connections.
func NewLimiter(limit int) *Limiter {
	return &Limiter{limit: int64(limit), surplus: map[net.Conn]struct{}{}}
}

// Follow is called by fasthttp when the state of a connection changes.
func (l *Limiter) Follow(conn net.Conn, state fasthttp.ConnState) {
	switch state {
	case fasthttp.StateNew:
		l.silent.Store(conn, nil)
		if l.open.Add(1) > l.limit && !l.remember(conn) {
			conn.Close()
		}
	case fasthttp.StateActive:
		l.silent.Delete(conn)
	case fasthttp.StateClosed:
		l.silent.Delete(conn)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.surplus, conn)
		l.open.Add(-1)
	}
}

// remember notes that a connection is over the limit. It returns false if there are too many of those.
func (l *Limiter) remember(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.surplus) >= MaxSurplus {
		return false
	}
	l.surplus[conn] = struct{}{}
	return true
}

// Open returns how many connections are open.
func (l *Limiter) Open() int { return int(l.open.Load()) }

// HasSent reports whether anything has arrived on a connection.
func (l *Limiter) HasSent(conn net.Conn) bool {
	_, silent := l.silent.Load(conn)
	return !silent
}

// Refuses reports whether a connection came when the limit was reached, and there still is no room for it.
func (l *Limiter) Refuses(conn net.Conn) bool {
	if l.open.Load() <= l.limit {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, surplus := l.surplus[conn]
	return surplus
}
