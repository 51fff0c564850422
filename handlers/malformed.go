package handlers

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"portmaster/allocator"
)

// tooManyConnections answers a request on a connection over the limit.
var tooManyConnections = &allocator.Error{Code: allocator.CodeUnavailable, Detail: "the server has too many connections", RetryAfter: time.Second}

// refuseBroken answers a request that did not arrive completely. If its sender is still there, next answers it.
//
// A connection without a single byte of a request is closed silently. A client or a load balancer may have opened it in
// advance, and would take an answer for that of its first request.
func (s *Server) refuseBroken(next func(*fasthttp.RequestCtx, error)) func(*fasthttp.RequestCtx, error) {
	return func(ctx *fasthttp.RequestCtx, err error) {
		began, late := s.connections.HasSent(ctx.Conn()), timedOut(err)
		switch {
		case late && began:
			s.refuse(ctx, fiber.ErrRequestTimeout)
		case late || reset(err) || !began: // the last of these is a failed TLS handshake
			if began {
				s.refuse(ctx, allocator.ErrAbandoned)
			}
			ctx.Conn().Close()
		default:
			next(ctx, err)
		}
	}
}

// timedOut reports whether a request took too long to arrive. For a chunked body fasthttp gives the cause as text only.
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

// check refuses requests that fasthttp accepts and no route should get.
func (s *Server) check(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		switch header := &ctx.Request.Header; {
		case s.connections.Refuses(ctx.Conn()):
			s.refuse(ctx, tooManyConnections)
		case !isUnambiguous(header):
			s.refuse(ctx, fiber.ErrBadRequest)
		default:
			// Fiber refuses a method that it does not know in plain text. As TRACE, which no route has, the request gets the usual
			// 405, or 404 if the path is unknown.
			if !slices.Contains(fiber.DefaultMethods, string(header.Method())) {
				header.SetMethod(fiber.MethodTrace)
			}
			next(ctx)
			return
		}
		ctx.SetConnectionClose()
	}
}

// isUnambiguous reports whether every proxy on the way reads a request's header as this server does. fasthttp accepts lines
// that end in a bare LF or continue in the next one, two lengths of one body, and trailers, which it takes for headers. With
// these a request could be two requests to another server (request smuggling), or carry a header that its sender never sent.
func isUnambiguous(header *fasthttp.RequestHeader) bool {
	if len(header.Peek(fasthttp.HeaderTrailer)) > 0 { // announced or not
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
