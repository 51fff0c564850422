package client_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/client"
	"portmaster/handlers/servertest"
)

// address is that of the server that the examples ask.
var address string

func TestMain(m *testing.M) {
	var stop func()
	var err error
	if address, stop, err = servertest.Run(); err != nil {
		panic(err)
	}
	code := m.Run()
	stop()
	os.Exit(code)
}

// maxWait is how long one request may wait on a server of the tests.
const maxWait = servertest.MaxWait

// fate is what becomes of a request in a proxy.
type fate int

const (
	passes         fate = iota
	isRefused           // 503, and the server does not hear of it
	neverArrives        // the connection breaks before the server hears of it
	answerLost          // the connection breaks behind the server's answer
	answerHalf          // ... in the middle of it
	answerTimedOut      // 504 in place of the answer
	answerStalls        // half of the answer, and nothing more while the client stays
	fates
)

// proxy stands between a client and the real server, and decides what becomes of each request.
type proxy struct {
	server   string
	decide   atomic.Pointer[func(*http.Request) fate]
	requests atomic.Int64
	open     atomic.Int64 // connections
	back     http.Transport
}

// startProxy starts a proxy in front of a server of the test's own, and returns a Client that goes through it.
func startProxy(t *testing.T, options client.Options, decide func(*http.Request) fate) (*client.Client, *proxy) {
	p := &proxy{server: servertest.Start(t)}
	p.decide.Store(&decide)
	front := httptest.NewUnstartedServer(p)
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	front.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			p.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			p.open.Add(-1)
		}
	}
	front.Start()
	t.Cleanup(front.Close)
	t.Cleanup(p.back.CloseIdleConnections)
	return newClient(t, front.URL, options), p
}

func (p *proxy) set(decide func(*http.Request) fate) { p.decide.Store(&decide) }

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	body, _ := io.ReadAll(r.Body) // else nobody notices that the client leaves
	fate := (*p.decide.Load())(r)
	switch fate {
	case isRefused:
		w.Header().Set("Retry-After", "0")
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	case neverArrives:
		panic(http.ErrAbortHandler)
	}
	request, _ := http.NewRequestWithContext(r.Context(), r.Method, p.server+r.URL.RequestURI(), bytes.NewReader(body))
	request.Header = r.Header
	answer, err := p.back.RoundTrip(request)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	said, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if fate == answerTimedOut {
		http.Error(w, "timeout", http.StatusGatewayTimeout)
		return
	}
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	if fate != passes && fate != answerLost && len(said) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(said)))
		w.WriteHeader(answer.StatusCode)
		w.Write(said[:len(said)/2])
		if http.NewResponseController(w).Flush(); fate == answerStalls {
			<-r.Context().Done()
		}
	}
	if fate != passes {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(answer.StatusCode)
	w.Write(said)
}

// newClient returns a Client of a server.
func newClient(t *testing.T, address string, options client.Options) *client.Client {
	t.Helper()
	c, err := client.New(address, options)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// ownServer returns a Client of a server of the test's own.
func ownServer(t *testing.T, options client.Options) *client.Client {
	t.Helper()
	return newClient(t, servertest.Start(t), options)
}

// stub starts a server that answers as a function does, and returns a Client of it and the count of requests.
func stub(t *testing.T, options client.Options, answer http.HandlerFunc) (*client.Client, *atomic.Int64) {
	t.Helper()
	var requests atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		requests.Add(1)
		answer(w, r)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(s.Close)
	return newClient(t, s.URL, options), &requests
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon repeats a check until it succeeds, for ten seconds at most.
func soon(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + ": not within 10 s")
		}
	}
}

func define(t testing.TB, c *client.Client, name string, start, end int) {
	t.Helper()
	_, err := c.Define(t.Context(), client.Definition{Name: name, Start: start, End: end})
	must(t, err)
}

func counts(t testing.TB, c *client.Client, service string) client.PortCounts {
	t.Helper()
	s, err := c.Service(t.Context(), service)
	must(t, err)
	return s.Ports
}
