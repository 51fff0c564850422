package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

func TestBench(t *testing.T) {
	p := startProgram(t)
	code, stdout, stderr := run(t, []string{"bench", "--url", "http://" + p.addr, "--clients", "8", "--duration", "1100ms", "--pool", "load", "--output", "json"})
	if code != 0 {
		t.Fatalf("it exits with %d: %s", code, stderr)
	}
	var r benchResult
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if r.Clients != 8 || r.Cycles < 1 || r.Requests != 3*r.Cycles || len(r.Errors) > 0 || r.GivenTwice != 0 ||
		r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Max || r.Offer.P50 <= 0 || r.Accept.P50 <= 0 || r.Release.P50 <= 0 {
		t.Errorf("it found %+v", r)
	}
	if !strings.Contains(stderr, "cycles/s") {
		t.Errorf("no progress in %q", stderr)
	}
	if left := p.must(t, 200, "GET", "/v1/pools/load/services", ""); strings.TrimSpace(left) != "[]" {
		t.Errorf("it leaves %s", left)
	}
}

// The clients are shared out among several servers. One of the three here is away, and so two of six clients count errors.
func TestBenchOfSeveralServers(t *testing.T) {
	p := startProgram(t)
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer away.Close()
	here := "http://" + p.addr
	code, stdout, stderr := run(t, []string{"bench", "--url", here + "," + here, "--url", away.URL, "--clients", "6", "--duration", "300ms", "--output", "json"})
	var r benchResult
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || r.Cycles < 1 || r.Errors["502 "] < 2 {
		t.Errorf("it exits with %d: %s%s", code, stdout, stderr)
	}
}

// A server that lets nobody release without a proof is left as it was found, too, whatever answers were lost on the way: here
// that of each fifth acceptance and of each fifth release.
func TestBenchLeavesNothingBehind(t *testing.T) {
	p := startProgram(t, "PORTMASTER_RELEASE_NEEDS_SECRET=true")
	server := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: p.addr})
	var changes atomic.Int64
	server.ModifyResponse = func(r *http.Response) error {
		late := strings.HasSuffix(r.Request.URL.Path, "/accept") || strings.Contains(r.Request.URL.Path, "/ports/")
		if late && r.Request.Header.Get("Portmaster-Secret") == "" && changes.Add(1)%5 == 0 {
			r.StatusCode = http.StatusGatewayTimeout
		}
		return nil
	}
	between := httptest.NewServer(server)
	defer between.Close()
	code, stdout, stderr := run(t, []string{"bench", "--url", between.URL, "--clients", "2", "--duration", "300ms", "--output", "json"})
	var r benchResult
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || r.Cycles < 1 || len(r.Errors) == 0 {
		t.Errorf("it exits with %d: %s%s", code, stdout, stderr)
	}
	if left := p.must(t, 200, "GET", "/v1/pools/bench/services", ""); strings.TrimSpace(left) != "[]" {
		t.Errorf("it leaves %s", left)
	}
}

func TestBenchRefusesWrongFlags(t *testing.T) {
	for _, wrong := range [][]string{
		{"--url", "nonsense"}, {"--url", ""}, {"--url", "http://127.0.0.1:1,nonsense"}, {"--clients", "0"}, {"--duration", "0s"}, {"--output", "xml"},
	} {
		if code, _, stderr := run(t, append([]string{"bench"}, wrong...)); code != 1 || !strings.Contains(stderr, wrong[0]) {
			t.Errorf("%v: it exits with %d and says %q", wrong, code, stderr)
		}
	}
}

// TestBenchNoticesAPortGivenTwice calls a server that gives everybody the same port.
func TestBenchNoticesAPortGivenTwice(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"port":12345,"secret":"6f8ffc86-d98a-49ba-848a-a7cbaaea9360"}`)
		}
	}))
	defer server.Close()
	code, stdout, stderr := run(t, []string{"bench", "--url", server.URL, "--clients", "8", "--duration", "300ms"})
	if code != 1 || !strings.Contains(stderr, "given twice") || strings.Contains(stdout, "ports given twice  0") {
		t.Errorf("it exits with %d and says %q", code, stderr)
	}
}

// TestBenchCountsErrors calls a server that has no port to give.
func TestBenchCountsErrors(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			w.WriteHeader(http.StatusCreated)
		case http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"code":"EXHAUSTED"}`)
		}
	}))
	defer server.Close()
	_, stdout, _ := run(t, []string{"bench", "--url", server.URL, "--clients", "2", "--duration", "200ms", "--output", "json"})
	var r benchResult
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || r.Errors["409 EXHAUSTED"] < 1 || r.Cycles != 0 {
		t.Errorf("it found %s", stdout)
	}
}
