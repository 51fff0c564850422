package handlers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// api is a server on a store, and the one client by which all tests ask it. Every answer is held against openapi.yaml, and
// no secret that it ever gave may show in a list, a problem or the log.
type api struct {
	t       testing.TB
	store   storetest.Store
	server  *Server
	addr    string
	client  *http.Client
	log     *logs
	secrets map[string]bool
}

// settings are those of the server under test: the program's own defaults, unless a test changes them, and patience for
// a machine that has much to do.
type settings struct {
	allocator allocator.Options
	server    Options
}

func newAPI(t testing.TB, store storetest.Store, change ...func(*settings)) *api {
	t.Helper()
	log := &logs{}
	s := settings{
		allocator: allocator.Options{
			KeyPrefix: store.Prefix, OfferTTL: 30 * time.Minute, PortMin: 1024, PortMax: 49151, Timeout: 5 * time.Second,
			MaxWait: time.Minute, Quarantine: 5 * time.Minute,
		},
		server: Options{
			ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second,
			BodyLimit: 64 << 10, Concurrency: 100, SlowCall: time.Minute, Hosts: []string{"a", "b"},
			Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
	}
	for _, f := range change {
		f(&s)
	}
	return serve(t, store, New(allocator.New(store.Client, s.allocator), s.server), log)
}

func serve(t testing.TB, store storetest.Store, server *Server, log *logs) *api {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &api{
		t: t, store: store, server: server, addr: l.Addr().String(), log: log, secrets: map[string]bool{},
		client: &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 10 * time.Second},
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		a.client.CloseIdleConnections()
		if err := server.Shutdown(5 * time.Second); err != nil {
			t.Error("shutdown:", err)
		}
		l.Close() // a server that was shut down before it began to serve has not closed it
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error("serve:", err)
		}
		a.noSecretsIn("the log", log.String())
	})
	return a
}

// within returns the same client for a part of its test.
func (a *api) within(t testing.TB) *api {
	part := *a
	part.t = t
	return &part
}

func (a *api) get(path string, headers ...string) answer { return a.do("GET", path, "", headers...) }
func (a *api) put(path, body string, headers ...string) answer {
	return a.do("PUT", path, body, headers...)
}
func (a *api) post(path, body string, headers ...string) answer {
	return a.do("POST", path, body, headers...)
}
func (a *api) delete(path string, headers ...string) answer {
	return a.do("DELETE", path, "", headers...)
}

// do sends one request. A body is application/json, unless the headers (name, value, name, value ...) say another
// Content-Type; the value "" takes a header away.
func (a *api) do(method, path, body string, headers ...string) answer {
	a.t.Helper()
	return a.start(method, path, body, headers...).answer()
}

// call is a request under way.
type call struct {
	api     *api
	request *http.Request
	sent    []byte
	hangUp  context.CancelFunc // ends it, and its connection
	done    chan struct{}      // closed when one of these is there:
	said    *http.Response
	err     error
}

// start sends a request as do does, and does not wait for the answer.
func (a *api) start(method, path, body string, headers ...string) *call {
	a.t.Helper()
	ctx, hangUp := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.addr+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, secret := range uuids.FindAllString(path+body, -1) {
		a.secrets[secret] = true
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Del(headers[i])
		if headers[i+1] != "" {
			request.Header.Set(headers[i], headers[i+1])
		}
	}
	if secret := request.Header.Get(headerSecret); uuids.MatchString(secret) {
		a.secrets[secret] = true
	}
	c := &call{api: a, request: request, sent: []byte(body), hangUp: hangUp, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.said, c.err = a.client.Do(request)
	}()
	return c
}

// answer waits for what the server says.
func (c *call) answer() answer {
	c.api.t.Helper()
	<-c.done
	if c.err != nil {
		c.api.t.Fatalf("%s %s: %v", c.request.Method, c.request.URL, c.err)
	}
	defer c.hangUp()
	return c.api.read(c.request, c.sent, c.said)
}

// raw sends bytes that no client would, and reads the answer.
func (a *api) raw(bytes string) answer {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, bytes); err != nil {
		a.t.Fatal(err)
	}
	line, _, _ := strings.Cut(bytes, "\r\n")
	method, rest, _ := strings.Cut(line, " ")
	path, _, _ := strings.Cut(rest, " ")
	if absolute, ok := strings.CutPrefix(path, "http://"); ok {
		path = absolute[strings.Index(absolute, "/"):]
	}
	request := &http.Request{Method: method, RequestURI: path}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		a.t.Fatalf("%.60q: %v", bytes, err)
	}
	return a.read(request, nil, response)
}

// read is the way of every answer to a test.
func (a *api) read(request *http.Request, sent []byte, response *http.Response) answer {
	a.t.Helper()
	defer response.Body.Close()
	body, err := readBody(response)
	if err != nil {
		a.t.Fatal(err)
	}
	path := request.RequestURI
	if request.URL != nil {
		path = request.URL.EscapedPath()
	}
	r := answer{a.t, request.Method + " " + path, response.StatusCode, response.Header, string(body)}
	if strings.Contains(r.header.Get("Content-Type"), "json") {
		r.body = strings.TrimSuffix(r.body, "\n")
	}
	if err := holdAgainstDocument(request, path, sent, response, body); err != nil {
		a.t.Errorf("%s is not as openapi.yaml says: %v\n%s", r.request, err, r)
	}
	if r.status >= 400 || request.Method == "GET" && strings.HasPrefix(r.body, "[") {
		a.noSecretsIn("the answer to "+request.Method+" "+path, r.body)
	}
	for _, given := range secretsGiven.FindAllSubmatch(body, -1) {
		a.secrets[string(given[1])] = true
	}
	return r
}

// readBody reads a body to its end, or what a stream of events begins with.
func readBody(response *http.Response) (body []byte, err error) {
	if response.Header.Get("Content-Type") != "text/event-stream" || response.Request != nil && response.Request.Method == "HEAD" {
		return io.ReadAll(response.Body)
	}
	for lines := bufio.NewReader(response.Body); err == nil && !bytes.Contains(body, []byte("event: ready\n")); {
		var line []byte
		line, err = lines.ReadBytes('\n')
		body = append(body, line...)
	}
	return body, err
}

// uuids finds the secrets that a test sends.
var uuids = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// secretsGiven finds the secrets that an answer gives.
var secretsGiven = regexp.MustCompile(`"secret":"([^"]+)"`)

func (a *api) noSecretsIn(what, text string) {
	a.t.Helper()
	for secret := range a.secrets {
		if strings.Contains(text, secret) {
			a.t.Errorf("the secret %s is in %s:\n%s", secret, what, text)
		}
	}
}

// define makes a service of the pool "default".
func (a *api) define(name, span string) {
	a.t.Helper()
	start, end, _ := strings.Cut(span, "-")
	a.put("/v1/services/"+name, `{"start":`+start+`,"end":`+end+`}`).want(201)
}

// offer asks for a port of a service of the pool "default".
func (a *api) offer(service, name string) offer {
	a.t.Helper()
	return read[offer](a.post("/v1/services/"+service+"/offers", `{"name":"`+name+`"}`).want(201))
}

// accept accepts an offer of the pool "default".
func (a *api) accept(o offer) allocation {
	a.t.Helper()
	return read[allocation](a.post(o.path()+"/accept", "").want(201))
}

// claim claims a port of a service of the pool "default".
func (a *api) claim(service, body string) allocation {
	a.t.Helper()
	return read[allocation](a.post("/v1/services/"+service+"/ports", body).want(201))
}

// service reads a service of the pool "default".
func (a *api) service(name string) service {
	a.t.Helper()
	return read[service](a.get("/v1/services/" + name).want(200))
}

// logs is where the server under test logs to.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// equal fails the test where two values differ.
func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// contains fails the test where a text lacks a part.
func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
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
