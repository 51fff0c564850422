package handlers

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
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

// refuseBroken answers a request that did not arrive whole; next is what answers those whose sender is still there.
//
// A connection on which no request ever began is closed in silence: an answer to nothing would be taken for that of the
// first request by a client or a load balancer that opened the connection ahead of need.
func (s *Server) refuseBroken(next func(*fasthttp.RequestCtx, error)) func(*fasthttp.RequestCtx, error) {
	return func(ctx *fasthttp.RequestCtx, err error) {
		began, late := s.crowd.spoke(ctx.Conn()), timedOut(err)
		switch {
		case late && began:
			s.refuse(ctx, fiber.ErrRequestTimeout)
		case late || reset(err):
			if began {
				s.refuse(ctx, allocator.ErrAbandoned)
			}
			ctx.Conn().Close()
		default:
			next(ctx, err)
		}
	}
}

// timedOut reports whether a request took too long to arrive. Of a chunked body fasthttp tells the cause in words only.
func timedOut(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout() || strings.Contains(err.Error(), os.ErrDeadlineExceeded.Error())
}

// reset reports whether the connection broke while a request arrived.
func reset(err error) bool {
	_, broken := errors.AsType[net.Error](err)
	return broken || strings.Contains(err.Error(), syscall.ECONNRESET.Error())
}

// check refuses what fasthttp lets through and no route should see.
func (s *Server) check(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		switch header := &ctx.Request.Header; {
		case s.crowd.turnsAway(ctx.Conn()):
			s.refuse(ctx, tooManyConnections)
		case !isUnambiguous(header):
			s.refuse(ctx, fiber.ErrBadRequest)
		default:
			// A method that Fiber does not know it would refuse in plain text. It is refused as one that no route has: with 405 where
			// the path is known, and else with 404.
			if !slices.Contains(fiber.DefaultMethods, string(header.Method())) {
				header.SetMethod(fiber.MethodTrace)
			}
			next(ctx)
			return
		}
		ctx.SetConnectionClose()
	}
}

// isUnambiguous reports whether every server on the way reads a request's header as this one does. fasthttp bears with
// lines that end in a bare LF or go on in the next one, with two lengths of one body, and with trailers, which it takes
// for headers: by them what one server took for one request could be two to the next, or prove what its sender never said.
func isUnambiguous(header *fasthttp.RequestHeader) bool {
	if len(header.Peek(fasthttp.HeaderTrailer)) > 0 { // announced, or come unannounced
		return false
	}
	if version := string(header.Protocol()); version != "HTTP/1.1" && version != "HTTP/1.0" {
		return false
	}
	lengths := 0
	for raw := header.RawHeaders(); len(raw) > 0; {
		end := bytes.IndexByte(raw, '\n')
		if end < 1 || raw[end-1] != '\r' || raw[0] == ' ' || raw[0] == '\t' {
			return false
		}
		if isField(raw, fasthttp.HeaderContentLength) || isField(raw, fasthttp.HeaderTransferEncoding) {
			lengths++
		}
		raw = raw[end+1:]
	}
	return lengths <= 1
}

// isField reports whether a line is the field of that name.
func isField(line []byte, name string) bool {
	return len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name))
}
