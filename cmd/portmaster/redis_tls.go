package main

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// dialTLS opens the connections to every kind of node, Sentinels included.
func dialTLS(config *tls.Config, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := redis.NewDialer(&redis.Options{TLSConfig: config, DialTimeout: timeout})
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return tlsConn{conn.(*tls.Conn)}, nil
	}
}

// tlsConn is a TLS connection that shows go-redis as much as one without TLS.
type tlsConn struct{ *tls.Conn }

// SyscallConn is called by go-redis before it sends a call, to see whether Redis has closed the connection. Without it the
// first calls after a restart of Redis would have an unknown outcome, although Redis cannot have received them.
func (c tlsConn) SyscallConn() (syscall.RawConn, error) {
	return c.NetConn().(syscall.Conn).SyscallConn()
}

// Write is called by go-redis. From TLS 1.3 on, Redis refuses a client certificate after the handshake: it closes the
// connection, and an unread alert says why.
func (c tlsConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, why := c.Read(make([]byte, 1)); why != nil {
		if _, told := alert(why); told {
			return n, why
		}
	}
	return n, err
}

// alert finds the reason that Redis gave for ending TLS. The error has no type of its own.
func alert(err error) (text string, ok bool) {
	_, text, ok = strings.Cut(err.Error(), "remote error: tls: ")
	text, _, _ = strings.Cut(text, "\n") // the errors of several Sentinels are on a line each
	return text, ok
}
