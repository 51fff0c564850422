package connection

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// ListenTLS returns a listener whose connections speak TLS, and of which a Watcher notices that their clients end TLS. onFailure is
// called for each handshake that fails.
func ListenTLS(l net.Listener, config *tls.Config, onFailure func(error)) net.Listener {
	return &tlsListener{l, config, onFailure}
}

type tlsListener struct {
	net.Listener
	config    *tls.Config
	onFailure func(error)
}

// Accept implements net.Listener. It does not wait for the handshake.
func (l *tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	below := &belowTLS{Conn: conn}
	return &tlsConn{Conn: tls.Server(below, l.config), below: below, onFailure: l.onFailure}, nil
}

// maxAhead is how many bytes are read of what a client sends while its call waits. Behind more than that only the end of the TCP
// connection is seen.
const maxAhead = 16 << 10

// tlsConn is a TLS connection that can be read while a call waits, without taking anything from its next reader.
type tlsConn struct {
	*tls.Conn
	below     *belowTLS
	onFailure func(error)

	mu    sync.Mutex // while it is held nobody else looks ahead
	ahead []byte     // what was read ahead
	err   error      // what ended the reading
}

// Handshake is called by fasthttp, with a deadline for it as a whole. The error is final: no later read gets beyond it.
func (c *tlsConn) Handshake() error {
	err := c.Conn.Handshake()
	if err == nil {
		return nil
	}
	c.onFailure(err)
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil && isHTTP(plain.RecordHeader) {
		_, _ = io.WriteString(plain.Conn, speaksTLS)
	}
	return err
}

// speaksTLS is the answer to a request without TLS.
const speaksTLS = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" +
	"This port speaks TLS: use https.\n"

// isHTTP reports whether a client that should speak TLS began with an HTTP request.
func isHTTP(begin [5]byte) bool {
	return slices.ContainsFunc([]string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS "}, func(method string) bool {
		return strings.HasPrefix(method, string(begin[:])) || strings.HasPrefix(string(begin[:]), method)
	})
}

// Read implements net.Conn.
func (c *tlsConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	n, err := copy(p, c.ahead), c.err
	c.ahead = c.ahead[n:]
	c.mu.Unlock()
	switch {
	case n > 0:
		return n, nil
	case err != nil:
		return 0, err
	}
	return c.Conn.Read(p)
}

// hasEnded reads what has arrived, without waiting, and reports whether the client has ended TLS: by a close_notify, which may come
// without the end of the TCP connection, or by something that is not TLS. Nobody may read or write meanwhile.
func (c *tlsConn) hasEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.below.atOnce.Store(true)
	defer c.below.atOnce.Store(false)
	var chunk [1024]byte
	for c.err == nil && len(c.ahead) < maxAhead {
		n, err := c.Conn.Read(chunk[:])
		c.ahead = append(c.ahead, chunk[:n]...)
		if isTimeout(err) {
			return false
		}
		c.err = err
	}
	return c.err != nil
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// belowTLS is the connection below TLS.
type belowTLS struct {
	net.Conn
	atOnce atomic.Bool // reads and writes do not wait
}

// NetConn returns the connection with the socket.
func (b *belowTLS) NetConn() net.Conn { return b.Conn }

// Read implements net.Conn. If it must not wait and nothing has arrived, the error is a timeout, which TLS takes for temporary.
func (b *belowTLS) Read(p []byte) (int, error) {
	if b.atOnce.Load() {
		return readAtOnce(b.Conn, p)
	}
	return b.Conn.Read(p)
}

// Write implements net.Conn. TLS also writes while it reads, such as a new key that the client asked for. A client that asks and does
// not read must not stop the goroutine that looks at all connections: its own is then over.
func (b *belowTLS) Write(p []byte) (int, error) {
	if b.atOnce.Load() {
		return writeAtOnce(b.Conn, p)
	}
	return b.Conn.Write(p)
}
