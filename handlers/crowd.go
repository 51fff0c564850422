package handlers

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"portmaster/allocator"
)

// maxSurplus is how many connections over the limit are told so. One more is closed without a word.
const maxSurplus = 1000

// tooManyConnections is the answer to who asks for something on a connection over the limit.
var tooManyConnections = &allocator.Error{Code: allocator.CodeUnavailable, Detail: "the server has too many connections", RetryAfter: time.Second}

// crowd counts the connections of a server. It knows which of them came when the limit was reached, and on which nothing has
// come in yet.
type crowd struct {
	limit  int64
	open   atomic.Int64
	silent sync.Map // net.Conn -> nil

	mu      sync.Mutex
	surplus map[net.Conn]struct{}
}

// follow is told by fasthttp what becomes of a connection.
func (c *crowd) follow(conn net.Conn, state fasthttp.ConnState) {
	switch state {
	case fasthttp.StateNew:
		c.silent.Store(conn, nil)
		if c.open.Add(1) > c.limit && !c.remember(conn) {
			conn.Close()
		}
	case fasthttp.StateActive:
		c.silent.Delete(conn)
	case fasthttp.StateClosed:
		c.silent.Delete(conn)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.surplus, conn)
		c.open.Add(-1)
	}
}

// remember marks a connection as one too many, unless there are too many of those.
func (c *crowd) remember(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.surplus) >= maxSurplus {
		return false
	}
	c.surplus[conn] = struct{}{}
	return true
}

// spoke reports whether anything has come in on a connection.
func (c *crowd) spoke(conn net.Conn) bool {
	_, silent := c.silent.Load(conn)
	return !silent
}

// turnsAway reports whether a connection is one too many, and there is no room for it by now.
func (c *crowd) turnsAway(conn net.Conn) bool {
	if c.open.Load() <= c.limit {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, surplus := c.surplus[conn]
	return surplus
}
