package handlers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
	"portmaster/handlers/connection"
)

// dial opens a connection to the server on which a test writes what no client would.
func (a *api) dial() *net.TCPConn {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn.(*net.TCPConn)
}

// answers sends bytes, and nothing after them, and reads all that the server says until it closes the connection.
func (a *api) answers(bytes string) (all []answer) {
	a.t.Helper()
	conn := a.dial()
	if _, err := io.WriteString(conn, bytes); err != nil {
		a.t.Fatal(err)
	}
	conn.CloseWrite()
	for said := bufio.NewReader(conn); ; {
		if _, err := said.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
			a.t.Fatalf("the connection is not closed after %d answers", len(all))
		} else if err != nil {
			return all
		}
		request := &http.Request{Method: "POST", RequestURI: "/v1/services/django/ports"}
		response, err := http.ReadResponse(said, request)
		if err != nil {
			a.t.Fatalf("after %d answers: %v", len(all), err)
		}
		if response.StatusCode == http.StatusContinue {
			all = append(all, answer{t: a.t, status: response.StatusCode})
		} else {
			all = append(all, a.read(request, nil, response))
		}
	}
}

// The parts of a claim that is well-formed.
const (
	rawLine = "POST /v1/services/django/ports HTTP/1.1\r\n"
	rawHead = rawLine + "Host: a\r\nContent-Type: application/json\r\n"
	rawBody = `{"name":"raw-1"}`
	rawLong = "Content-Length: 16\r\n"
	rawNext = "POST /v1/services/django/ports HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" + `{"name":"raw-2"}`
	chunked = "Transfer-Encoding: chunked\r\n"
	chunks  = "10\r\n" + rawBody + "\r\n0\r\n\r\n"
)

// A request of which two servers may think differently where it ends, or what it says, is refused: with one answer and
// nothing done, whatever comes behind it.
func TestAmbiguousRequests(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for name, request := range map[string]string{
		"an unknown coding":                 rawHead + "Transfer-Encoding: gibberish\r\n\r\n" + chunks,
		"an unknown coding and a length":    rawHead + "Transfer-Encoding: gibberish\r\n" + rawLong + "\r\n" + rawBody,
		"chunked and an unknown coding":     rawHead + "Transfer-Encoding: chunked, gibberish\r\n\r\n" + chunks,
		"an unknown coding, then chunked":   rawHead + "Transfer-Encoding: gibberish, chunked\r\n\r\n" + chunks,
		"chunked twice":                     rawHead + chunked + chunked + "\r\n" + chunks,
		"chunked in HTTP/1.0":               strings.Replace(rawHead, "1.1", "1.0", 1) + chunked + "\r\n" + chunks,
		"a length, then chunked":            rawHead + rawLong + chunked + "\r\n" + chunks,
		"chunked, then a length":            rawHead + chunked + rawLong + "\r\n" + chunks,
		"a length and no coding at all":     rawHead + rawLong + "Transfer-Encoding: identity\r\n\r\n" + rawBody,
		"two lengths":                       rawHead + rawLong + "Content-Length: 3\r\n\r\n" + rawBody,
		"one length twice":                  rawHead + rawLong + rawLong + "\r\n" + rawBody,
		"a list of lengths":                 rawHead + "Content-Length: 16, 16\r\n\r\n" + rawBody,
		"a length with a sign":              rawHead + "Content-Length: +16\r\n\r\n" + rawBody,
		"a length in hex":                   rawHead + "Content-Length: 0x10\r\n\r\n" + rawBody,
		"an empty length":                   rawHead + "Content-Length:\r\n\r\n" + rawBody,
		"a negative length":                 rawHead + "Content-Length: -1\r\n\r\n" + rawBody,
		"two hosts":                         rawHead + "Host: b\r\n" + rawLong + "\r\n" + rawBody,
		"no host":                           rawLine + "Content-Type: application/json\r\n" + rawLong + "\r\n" + rawBody,
		"an empty host":                     rawLine + "Host:\r\nContent-Type: application/json\r\n" + rawLong + "\r\n" + rawBody,
		"a bare LF after a field":           rawHead + "X-A: 1\n" + rawLong + "\r\n" + rawBody,
		"a bare LF after the last field":    rawHead + "Content-Length: 16\n\r\n" + rawBody,
		"a bare LF before the body":         rawHead + rawLong + "\n" + rawBody,
		"bare LFs":                          strings.ReplaceAll(rawHead+rawLong+"\r\n", "\r\n", "\n") + rawBody,
		"a bare CR in a value":              rawHead + "X-A: 1\rX-B: 2\r\n" + rawLong + "\r\n" + rawBody,
		"a folded field":                    rawHead + "X-A: 1\r\n 2\r\n" + rawLong + "\r\n" + rawBody,
		"a length in a fold":                rawHead + "X-A: 1\r\n\tContent-Length: 3\r\n" + rawLong + "\r\n" + rawBody,
		"a folded length":                   rawHead + "Content-Length:\r\n 16\r\n\r\n" + rawBody,
		"a fold before the first field":     rawLine + " X-A: 1\r\nHost: a\r\nContent-Type: application/json\r\n" + rawLong + "\r\n" + rawBody,
		"a space before the colon":          rawHead + "Content-Length : 16\r\n\r\n" + rawBody,
		"a tab before the colon":            rawHead + "Content-Length\t: 16\r\n\r\n" + rawBody,
		"a field without a name":            rawHead + ": 1\r\n" + rawLong + "\r\n" + rawBody,
		"a field without a colon":           rawHead + "X-A\r\n" + rawLong + "\r\n" + rawBody,
		"NUL in a value":                    rawHead + "X-A: 1\x002\r\n" + rawLong + "\r\n" + rawBody,
		"NUL in a name":                     rawHead + "X-\x00A: 1\r\n" + rawLong + "\r\n" + rawBody,
		"HTTP/2.0":                          strings.Replace(rawHead, "HTTP/1.1", "HTTP/2.0", 1) + rawLong + "\r\n" + rawBody,
		"HTTP/9.9":                          strings.Replace(rawHead, "HTTP/1.1", "HTTP/9.9", 1) + rawLong + "\r\n" + rawBody,
		"NUL in the path":                   strings.Replace(rawHead, "django", "django\x00", 1) + rawLong + "\r\n" + rawBody,
		"a chunk with a colon":              rawHead + chunked + "\r\n0:\r\n\r\n",
		"a last chunk with a colon":         rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n0:\r\n\r\n",
		"a chunk of no number":              rawHead + chunked + "\r\n1g\r\n" + rawBody + "\r\n0\r\n\r\n",
		"a chunk with 0x":                   rawHead + chunked + "\r\n0x10\r\n" + rawBody + "\r\n0\r\n\r\n",
		"a chunk with a sign":               rawHead + chunked + "\r\n+10\r\n" + rawBody + "\r\n0\r\n\r\n",
		"a chunk of a size beyond all":      rawHead + chunked + "\r\n10000000000000010\r\n" + rawBody + "\r\n0\r\n\r\n",
		"a chunk longer than it says":       rawHead + chunked + "\r\nf\r\n" + rawBody + "\r\n0\r\n\r\n",
		"a chunk shorter than it says":      rawHead + chunked + "\r\n11\r\n" + rawBody + "\r\n0\r\n\r\n",
		"a bare LF after the size":          rawHead + chunked + "\r\n10\n" + rawBody + "\r\n0\r\n\r\n",
		"a bare LF in an extension":         rawHead + chunked + "\r\n10;a\n" + rawBody + "\r\n0\r\n\r\n",
		"a bare LF after a chunk":           rawHead + chunked + "\r\n10\r\n" + rawBody + "\n0\r\n\r\n",
		"a trailer":                         rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n0\r\nX-A: 1\r\n\r\n",
		"a trailer with a bare LF":          rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n0\r\nX-A: 1\n\r\n",
		"a trailer that is announced":       rawHead + chunked + "Trailer: X-A\r\n\r\n10\r\n" + rawBody + "\r\n0\r\nX-A: 1\r\n\r\n",
		"a trailer that is announced only":  rawHead + chunked + "Trailer: X-A\r\n\r\n" + chunks,
		"a length in a trailer":             rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n0\r\nContent-Length: 16\r\n\r\n",
		"no version":                        "POST /v1/services/django/ports\r\nHost: a\r\n" + rawLong + "\r\n" + rawBody,
		"a version of letters":              strings.Replace(rawHead, "1.1", "x.y", 1) + rawLong + "\r\n" + rawBody,
		"two spaces before the version":     strings.Replace(rawHead, " HTTP", "  HTTP", 1) + rawLong + "\r\n" + rawBody,
		"an asterisk for a path":            strings.Replace(rawHead, "/v1/services/django/ports", "*", 1) + rawLong + "\r\n" + rawBody,
		"an authority for a path":           strings.Replace(rawHead, "/v1/services/django/ports", "a:80", 1) + rawLong + "\r\n" + rawBody,
		"a bad length, and 100 is expected": rawHead + "Expect: 100-continue\r\n" + rawLong + rawLong + "\r\n" + rawBody,
	} {
		t.Run(name, func(t *testing.T) {
			a := a.within(t)
			a.define("django", "5000-5009")
			defer a.forget("django")
			answers := a.answers(request + rawNext)
			if len(answers) != 1 {
				t.Fatalf("%d answers to one request: %v", len(answers), answers)
			}
			answers[0].invalid("request")
			equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 10})
		})
	}
}

// forget takes a service away, with all that is held of it.
func (a *api) forget(service string) {
	a.t.Helper()
	for _, held := range read[[]allocation](a.get("/v1/services/" + service + "/ports").want(200)) {
		a.delete(held.path()).want(204)
	}
	a.delete("/v1/services/" + service).want(204)
}

// What is unusual and means one thing only is served, each request once; what is not whole, or too much, is not.
func TestUnusualRequests(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	claim := rawHead + rawLong + "\r\n" + rawBody
	for name, test := range map[string]struct {
		request  string
		statuses string
	}{
		"as usual":                    {claim, "201"},
		"names in other case":         {rawLine + "HOST: a\r\ncontent-TYPE: application/json\r\ncontent-length: 16\r\n\r\n" + rawBody, "201"},
		"chunks":                      {rawHead + chunked + "\r\n" + chunks, "201"},
		"two chunks":                  {rawHead + chunked + "\r\n8\r\n" + rawBody[:8] + "\r\n8\r\n" + rawBody[8:] + "\r\n0\r\n\r\n", "201"},
		"a chunk with an extension":   {rawHead + chunked + "\r\n10;a=b\r\n" + rawBody + "\r\n0\r\n\r\n", "201"},
		"chunks, then a request":      {rawHead + chunked + "\r\n" + chunks + rawNext, "201 201"},
		"HTTP/1.0":                    {strings.Replace(claim, "1.1", "1.0", 1), "201"},
		"HTTP/1.0 without a host":     {strings.Replace(strings.Replace(claim, "1.1", "1.0", 1), "Host: a\r\n", "", 1), "201"},
		"HTTP/1.0, then a request":    {strings.Replace(claim, "1.1", "1.0", 1) + rawNext, "201"}, // it closes the connection
		"an absolute path":            {strings.Replace(claim, "/v1", "http://a/v1", 1), "201"},
		"another host's":              {strings.Replace(claim, "/v1", "http://b/v1", 1), "201"},
		"100 is expected":             {rawHead + "Expect: 100-continue\r\n" + rawLong + "\r\n" + rawBody, "100 201"},
		"100 is expected in HTTP/1.0": {strings.Replace(rawHead, "1.1", "1.0", 1) + "Expect: 100-continue\r\n" + rawLong + "\r\n" + rawBody, "201"},
		"something else is expected":  {rawHead + "Expect: wonders\r\n" + rawLong + "\r\n" + rawBody, "201"},
		"blank lines before":          {"\r\n\r\n" + claim, "201"},
		"a bare LF after the path":    {strings.Replace(claim, "\r\n", "\n", 1), "201"}, // RFC 9112 2.2 allows it, and nothing is unclear
		"one after the other":         {claim + rawNext, "201 201"},
		"the same one twice":          {claim + claim, "201 409"},
		"closed after the first":      {rawHead + "Connection: close\r\n" + rawLong + "\r\n" + rawBody + rawNext, "201"},
		"a good one, then a bad one":  {claim + rawHead + rawLong + chunked + "\r\n" + chunks + rawNext, "201 400"},
		"a good one, then half a one": {claim + rawNext[:len(rawNext)-1], "201 400"},
		"half a header":               {rawHead[:len(rawHead)-5], "400"},
		"half a body":                 {claim[:len(claim)-1], "400"},
		"a body that is too long":     {rawHead + "Content-Length: 65537\r\n\r\n", "413"},
		"a chunk that is too long":    {rawHead + chunked + "\r\n10001\r\n", "413"},
		"a header that is too long":   {rawHead + "X-A: " + strings.Repeat("a", 8<<10) + "\r\n" + rawLong + "\r\n" + rawBody, "413"},
		"too many fields":             {rawHead + strings.Repeat("X-A: 1\r\n", 1024) + rawLong + "\r\n" + rawBody, "413"},
		"a path that is too long":     {"GET /" + strings.Repeat("a", 9<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", "413"},
		"nothing but blank lines":     {"\r\n\r\n", ""},
		"nothing":                     {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := a.within(t)
			a.define("django", "5000-5009")
			defer a.forget("django")
			var statuses []string
			claimed := 0
			for _, r := range a.answers(test.request) {
				statuses = append(statuses, fmt.Sprint(r.status))
				if r.status == 201 {
					claimed++
				}
			}
			equal(t, "statuses", strings.Join(statuses, " "), test.statuses)
			equal(t, "allocated", a.service("django").Ports.Allocated, claimed)
		})
	}
}

// What a trailer says proves nothing, and takes nothing away.
func TestTrailersAreNoHeaders(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.allocator.ReleaseNeedsSecret = true })
	a.define("django", "5000-5009")
	held := a.claim("django", `{"name":"web-01"}`)
	for _, trailer := range []string{"Portmaster-Secret: " + held.Secret, "If-Match: *", fmt.Sprintf(`If-Match: "%d"`, held.Fence), "portmaster-secret: " + held.Secret} {
		name, _, _ := strings.Cut(trailer, ":")
		for _, announced := range []string{"", "Trailer: " + name + "\r\n"} {
			r := a.raw("DELETE " + held.path() + " HTTP/1.1\r\nHost: a\r\n" + chunked + announced + "\r\n0\r\n" + trailer + "\r\n\r\n")
			r.invalid("request")
			a.get(held.path()).want(200)
		}
	}
	a.delete(held.path(), headerSecret, held.Secret).want(204)
}

// A request that begins and does not go on gets 408, wherever it stops: a load balancer that hears nothing would tell its
// client that the server did not answer.
func TestSlowRequests(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.ReadTimeout = 200 * time.Millisecond })
	a.define("django", "5000-5009")
	for name, request := range map[string]string{
		"the path":                rawLine[:10],
		"the header":              rawHead,
		"the body":                rawHead + rawLong + "\r\n",
		"the rest of the body":    rawHead + rawLong + "\r\n" + rawBody[:8],
		"a body that is expected": rawHead + "Expect: 100-continue\r\n" + rawLong + "\r\n",
		"the first chunk":         rawHead + chunked + "\r\n",
		"the size of a chunk":     rawHead + chunked + "\r\n1",
		"the end of a size":       rawHead + chunked + "\r\n10\r",
		"the rest of a chunk":     rawHead + chunked + "\r\n10\r\n" + rawBody[:8],
		"the next chunk":          rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n",
		"the end of the chunks":   rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n0\r\n",
		"a trailer":               rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n0\r\nX-A: ",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := a.within(t)
			conn := a.dial()
			io.WriteString(conn, request)
			said := bufio.NewReader(conn)
			response, err := http.ReadResponse(said, nil)
			if err == nil && response.StatusCode == http.StatusContinue {
				response, err = http.ReadResponse(said, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			a.read(&http.Request{Method: "POST", RequestURI: "/v1/services/django/ports"}, nil, response).problem(408, "TIMEOUT")
			if more, _ := io.ReadAll(said); len(more) > 0 {
				t.Errorf("a second answer: %q", more)
			}
		})
	}
}

// Who breaks the connection while a request arrives hung up: that is no fault of the server, and the log does not say so.
func TestResets(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	const each = 50
	for name, request := range map[string]string{
		"before it": "",
		"header":    rawHead,
		"body":      rawHead + rawLong + "\r\n" + rawBody[:8],
		"chunk":     rawHead + chunked + "\r\n10\r\n" + rawBody[:8],
		"size":      rawHead + chunked + "\r\n10",
		"trailer":   rawHead + chunked + "\r\n10\r\n" + rawBody + "\r\n0\r\nX-A",
		"expected":  rawHead + "Expect: 100-continue\r\n" + rawLong + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			a := a.within(t)
			before := a.count("HUNG_UP")
			for range each {
				conn := a.dial()
				io.WriteString(conn, request)
				if name == "expected" {
					io.ReadFull(conn, make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n")))
				}
				conn.SetLinger(0) // so that closing it is a reset
				conn.Close()
			}
			if request == "" {
				soon(t, "they are forgotten", func() bool { return a.server.connections.Open() <= 1 })
				equal(t, "hung up", a.count("HUNG_UP"), before)
			} else {
				soon(t, "all are counted", func() bool { return a.count("HUNG_UP") == before+each })
			}
		})
	}
	if log := a.log.String(); log != "" {
		t.Errorf("the log tells of it: %s", log)
	}
	figures := a.get("/metrics").body
	contains(t, figures, `portmaster_http_request_duration_seconds_count{method="other",route="other",status="499"} 300`+"\n")
	for _, status := range []string{"400", "408", "500"} {
		if strings.Contains(figures, `status="`+status+`"`) {
			t.Errorf("some count as %s", status)
		}
	}
	equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 10})
}

// count returns how many requests to no route had an outcome.
func (a *api) count(code string) (n int) {
	_, rest, _ := strings.Cut(a.get("/metrics").body, `portmaster_operations_total{code="`+code+`",operation="other"} `)
	fmt.Sscan(rest, &n)
	return n
}

// One connection too many is told so when it asks for something, as a problem, and served when there is room again.
func TestTooManyConnections(t *testing.T) {
	const limit, tooMany = 5, 50
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.Concurrency = limit })
	ask := func(conn net.Conn) answer {
		t.Helper()
		fmt.Fprintf(conn, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return a.read(&http.Request{Method: "GET", RequestURI: "/readyz"}, nil, response)
	}
	var served []net.Conn
	for range limit {
		conn := a.dial()
		ask(conn).want(200)
		served = append(served, conn)
	}
	for range tooMany {
		conn := a.dial()
		r := ask(conn)
		equal(t, "detail", r.problem(503, "UNAVAILABLE").Detail, "the server has too many connections")
		equal(t, "Retry-After", r.header.Get("Retry-After"), "1")
		if more, err := io.ReadAll(conn); err != nil || len(more) > 0 {
			t.Fatalf("the connection goes on: %q, %v", more, err)
		}
	}
	for _, conn := range served {
		ask(conn).want(200)
	}
	early := a.dial() // it comes while there is no room, and asks when there is
	soon(t, "it is there", func() bool { return a.server.connections.Open() == limit+1 })
	served[0].Close()
	soon(t, "there is room", func() bool { return a.server.connections.Open() == limit })
	ask(early).want(200)
	early.Close()
	soon(t, "there is room", func() bool { return a.server.connections.Open() < limit })
	equal(t, "refused", a.count("UNAVAILABLE"), tooMany)
}

// So many that are too many are closed without a word: they take no place that could be taken from others.
func TestFarTooManyConnections(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.Concurrency, s.server.ReadTimeout = 1, time.Minute })
	for range 1 + connection.MaxSurplus {
		a.dial()
	}
	soon(t, "all are there", func() bool { return a.server.connections.Open() == 1+connection.MaxSurplus })
	said, err := io.ReadAll(a.dial())
	if err != nil || len(said) > 0 {
		t.Errorf("one more is told %q, %v", said, err)
	}
}
