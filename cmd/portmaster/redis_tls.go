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

// tlsConn is a TLS connection that tells as much as one without TLS.
type tlsConn struct{ *tls.Conn }

// SyscallConn is called by go-redis, which sees by it, before it sends a call, that Redis has closed the connection. Else
// the first calls after a restart of Redis have an unknown outcome, though nobody can have got them.
func (c tlsConn) SyscallConn() (syscall.RawConn, error) {
	return c.NetConn().(syscall.Conn).SyscallConn()
}

// Write is called by go-redis. From TLS 1.3 on, a client certificate is refused after the handshake: Redis hangs up, and
// what is left to be read says why.
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

// alert finds what Redis said when it broke off TLS. Its error has no type to tell it by.
func alert(err error) (text string, ok bool) {
	_, text, ok = strings.Cut(err.Error(), "remote error: tls: ")
	text, _, _ = strings.Cut(text, "\n") // the errors of several Sentinels are on a line each
	return text, ok
}
