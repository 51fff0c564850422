package check

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// What a load balancer answers by itself is a problem in JSON, like the errors of the server.

// statuses are all that HAProxy 2.6 can answer with by itself, but for 200, and the codes of their problems.
var statuses = map[int]string{
	400: "INVALID", 401: refused, 403: refused, 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 407: refused, 408: "TIMEOUT", 410: refused,
	413: "TOO_LARGE", 421: refused, 422: refused, 425: refused, 429: refused, 500: "INTERNAL", 501: refused, 502: "OUTCOME_UNKNOWN",
	503: "UNAVAILABLE", 504: "OUTCOME_UNKNOWN",
}

// refused is the one code that the server does not have.
const refused = "REFUSED"

// TestHAProxyProblems adds a rule for each status to the backends, and reads what HAProxy then answers with.
func TestHAProxyProblems(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		var rules string
		for status := range statuses {
			rules += fmt.Sprintf("\n    http-request deny deny_status %d if { path /%d }", status, status)
		}
		addr := startHAProxy(t, copied(t, dir, "haproxy.cfg", "\nbackend replicas\n", "\nbackend replicas"+rules+"\n", "\nbackend waiting\n", "\nbackend waiting"+rules+"\n"),
			freeAddr(t), freeAddr(t), freeAddr(t))
		var faults []error
		for status, code := range statuses {
			for _, query := range []string{"", "?wait=1"} {
				got := callOnce("GET", fmt.Sprintf("http://%s/%d%s", addr, status, query))
				if err := got.isProblem(code); err != nil {
					faults = append(faults, fmt.Errorf("%d: %w", status, err))
				}
				if !strings.Contains(read(t, filepath.Join(repository, "handlers", "README.md")), fmt.Sprintf("\n| `%s` | %d |", code, got.status)) && code != refused {
					faults = append(faults, fmt.Errorf("the server has no %s with %d", code, got.status))
				}
			}
		}
		return errors.Join(faults...)
	},
		mutant{"haproxy.cfg", `"status":413`, `"status":414`, "413: it is no TOO_LARGE"},
	)
}

// malformed are requests that are no HTTP, or too large, or not whole, and the codes of the problems that HAProxy or the server
// behind it, answer with; empty if the connection is closed without an answer.
var malformed = []struct{ request, code string }{
	{"GARBAGE\r\n\r\n", ""},
	{"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", ""},
	{"GET / HTTP/9.9\r\nHost: x\r\n\r\n", "NOT_FOUND"},
	{"GET / HTTP/1.1\r\n\r\n", "INVALID"},
	{"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", ""},
	{"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", ""},
	{"GET /" + tooMuch + " HTTP/1.1\r\nHost: x\r\n\r\n", ""},
	{"GET / HTTP/1.1\r\nHost: x\r\nA: " + tooMuch + "\r\n\r\n", ""},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", ""},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n", "TOO_LARGE"},
	{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", ""},
	{"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", "NOT_FOUND"},
	{"GET / HTTP/1.1\r\nHos", ""},
}

var tooMuch = strings.Repeat("a", 40<<10)

// HAProxy has no text but its own HTML for what it cannot read: it closes the connection. What it can read, the server refuses.
func TestHAProxyRefusesMalformed(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		server := crowdedServer(t)
		addr := startHAProxy(t, copied(t, dir, "haproxy.cfg", "timeout http-request 10s", "timeout http-request 1s"), server, server, server)
		var faults []error
		for _, m := range malformed {
			faults = append(faults, refuses(addr, m.request, m.code))
		}
		return errors.Join(faults...)
	},
		mutant{"haproxy.cfg", "errorfile 400 /dev/null", "", "<h1>400 Bad request</h1>"},
	)
}

// refuses sends what may be no request, and returns an error unless the answer is the problem, or nothing if code is empty.
func refuses(addr, request, code string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	go conn.Write([]byte(request)) // the answer may come before all of it is read
	got, err := readAnswer(conn)
	switch {
	case code == "" && errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	case code != "" && err == nil:
		err = got.isProblem(code)
	case err == nil:
		err = errors.New("it is answered")
	}
	if err != nil {
		return fmt.Errorf("%.60q: %w: %d %s", request, err, got.status, got.body)
	}
	return nil
}
