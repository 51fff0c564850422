package handlers

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
	"portmaster/handlers/certificate"
	"portmaster/handlers/connection"
)

// overTLS makes the server listen on a second address, over TLS, and returns it, with what a client has to trust.
func (a *api) overTLS() (addr string, client *tls.Config) {
	a.t.Helper()
	authority, err := storetest.NewAuthority(a.t.TempDir())
	if err != nil {
		a.t.Fatal(err)
	}
	files, err := authority.Issue("server")
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := certificate.Open(certificate.Files{Cert: files.Cert, Key: files.Key}, slog.New(slog.DiscardHandler))
	if err != nil {
		a.t.Fatal(err)
	}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		a.t.Fatal(err)
	}
	client = &tls.Config{RootCAs: x509.NewCertPool()}
	client.RootCAs.AppendCertsFromPEM(pem)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	go a.server.Serve(cert.Listen(l))
	return l.Addr().String(), client
}

// dialTLS opens a connection over TLS on which a test writes what no client would.
func dialTLS(t *testing.T, addr string, client *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

// rawClaim is a claim of a port of django that waits.
func rawClaim(name string) string {
	body := `{"name":"` + name + `"}`
	return strings.Replace(rawHead, "/ports", "/ports?wait=30", 1) + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

// A client that hangs up below TLS, or only ends TLS, is gone, though what it sent before has not been read yet.
func TestHangUpOverTLS(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.ReadTimeout = 3 * time.Second }) // some wait for longer
	addr, client := a.overTLS()
	a.define("django", "5000-5000")
	held := a.claim("django", `{"name":"web-00"}`)
	type waiter struct {
		what, pending string
		conn          *tls.Conn
		hangUp        func(*tls.Conn) error
	}
	tcp := func(c *tls.Conn) *net.TCPConn { return c.NetConn().(*net.TCPConn) }
	var waiters []waiter
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, pending := range map[string]string{"nothing": "", "a request": "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"} {
			for how, hangUp := range map[string]func(*tls.Conn) error{
				"closed":         (*tls.Conn).Close,
				"a close_notify": (*tls.Conn).CloseWrite,
				"a FIN":          func(c *tls.Conn) error { return tcp(c).CloseWrite() },
				"a RST":          func(c *tls.Conn) error { tcp(c).SetLinger(0); return tcp(c).Close() },
				"no TLS":         func(c *tls.Conn) error { _, err := tcp(c).Write([]byte("hello, is this TLS?")); return err },
			} {
				own := client.Clone()
				own.MaxVersion = version
				w := waiter{tls.VersionName(version) + ", " + name + ", " + how, pending, dialTLS(t, addr, own), hangUp}
				waiters = append(waiters, w)
				io.WriteString(w.conn, rawClaim(fmt.Sprint("web-", len(waiters))))
			}
		}
	}
	wait := func(n int) func() bool { return func() bool { return a.service("django").Waiting == n } }
	soon(t, "all wait in line", wait(len(waiters)))
	for _, w := range waiters {
		io.WriteString(w.conn, w.pending)
	}
	time.Sleep(3 * connection.Interval)
	equal(t, "calls that still wait", a.service("django").Waiting, len(waiters))
	for i, w := range waiters {
		if err := w.hangUp(w.conn); err != nil {
			t.Fatal(w.what, err)
		}
		soon(t, w.what+": its place is given up", wait(len(waiters)-i-1))
	}
	a.delete(held.path()).want(204)
	equal(t, "ports", a.service("django").Ports, ports{Total: 1, Free: 1})
}

// A claim and a close_notify in one packet: the server has the latter before the call begins to wait.
func TestHangUpOverTLSBeforeTheWait(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t))
	addr, client := a.overTLS()
	a.define("django", "5000-5000")
	a.claim("django", `{"name":"web-00"}`)
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	client.ServerName = "127.0.0.1"
	together := &held{Conn: raw}
	conn := tls.Client(together, client)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	together.holds = true
	io.WriteString(conn, rawClaim("web-01"))
	conn.CloseWrite()
	raw.SetWriteDeadline(time.Time{}) // CloseWrite lets all further writes fail
	if _, err := raw.Write(together.bytes); err != nil {
		t.Fatal(err)
	}
	soon(t, "the call is over", func() bool {
		return strings.Contains(a.get("/metrics").body, `portmaster_operations_total{code="HUNG_UP",operation="claim"} 1`+"\n")
	})
}

// held is a connection that holds back what is written.
type held struct {
	net.Conn
	holds bool
	bytes []byte
}

func (h *held) Write(p []byte) (int, error) {
	if !h.holds {
		return h.Conn.Write(p)
	}
	h.bytes = append(h.bytes, p...)
	return len(p), nil
}

// What a client sends while its call waits, in pieces that are no whole record, is its next requests.
func TestNextRequestsOverTLS(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t))
	addr, client := a.overTLS()
	a.define("django", "5000-5000")
	first := a.claim("django", `{"name":"web-00"}`)
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(30 * time.Second))
	client.ServerName = "127.0.0.1"
	pieces := &held{Conn: raw}
	conn := tls.Client(pieces, client)
	io.WriteString(conn, rawClaim("web-01"))
	soon(t, "it waits in line", func() bool { return a.service("django").Waiting == 1 })

	// More than is read ahead, in records that come in halves.
	const requests = 40
	pieces.holds = true
	for range requests {
		io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: "+strings.Repeat("x", 1000)+"\r\n\r\n")
	}
	for _, end := range []int{3, 500, 4000, len(pieces.bytes)} {
		raw.Write(pieces.bytes[:min(end, len(pieces.bytes))])
		pieces.bytes = pieces.bytes[min(end, len(pieces.bytes)):]
		time.Sleep(2 * connection.Interval)
	}
	equal(t, "it still waits", a.service("django").Waiting, 1)
	a.delete(first.path()).want(204)
	answers := bufio.NewReader(conn)
	for i := range 1 + requests {
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("after %d answers: %v", i, err)
		}
		io.Copy(io.Discard, r.Body)
		if i == 0 && r.StatusCode != 201 || i > 0 && r.StatusCode != 200 {
			t.Fatalf("answer %d has status %d", i, r.StatusCode)
		}
	}
}

// A client that only ends its side of TLS gets the answer of a call that does not wait.
func TestHalfClosedOverTLS(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t))
	addr, client := a.overTLS()
	a.define("django", "5000-5009")
	conn := dialTLS(t, addr, client)
	io.WriteString(conn, strings.Replace(rawClaim("web-01"), "?wait=30", "", 1))
	conn.CloseWrite()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "status", r.StatusCode, 201)
}

// A client that never ends its handshake loses its connection, and one without TLS is told so. Neither counts as a request.
func TestHandshakesThatFail(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.ReadTimeout = 300 * time.Millisecond })
	addr, _ := a.overTLS()
	dial := func(text string) *net.TCPConn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, text)
		return conn.(*net.TCPConn)
	}
	for what, begin := range map[string]string{
		"nothing": "", "half a record": "\x16\x03\x01\x02\x00\x01", "half a message": "\x16\x03\x01\x00\x02xx", "nonsense": "\x17\x09\x09xxxx",
	} {
		conn := dial(begin)
		if left, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") || strings.Contains(string(left), "HTTP") {
			t.Errorf("%s: %q, %v", what, left, err)
		}
	}
	text, _ := io.ReadAll(dial("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"))
	contains(t, string(text), "HTTP/1.0 400 Bad Request\r\n", "This port speaks TLS: use https.\n")
	soon(t, "no connection is left but that of this client", func() bool { return a.server.connections.Open() <= 1 })
	if figures := a.get("/metrics").body; strings.Contains(figures, `operation="other"} 1`) {
		t.Errorf("a handshake is counted as a request:\n%s", figures)
	}
}
