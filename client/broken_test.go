package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/client"
	"portmaster/handlers/servertest"
)

const anAllocation = `{"service":"ci","name":"a","port":20000,"created":"2026-11-25T15:14:35.835Z","fence":1}`

func answer(w http.ResponseWriter, status int, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// A call that comes too soon for the caller's rate is made again when Retry-After says; one that may not be made is not.
func TestRefusedCallers(t *testing.T) {
	t.Parallel()
	for _, refused := range []struct {
		status   int
		err      error
		requests int64
	}{
		{429, client.ErrRateLimited, 2}, {401, client.ErrUnauthenticated, 1}, {403, client.ErrForbidden, 1}, {421, client.ErrMisdirected, 1},
	} {
		c, requests := stub(t, client.Options{RetryFor: 1900 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "1")
			answer(w, refused.status, "application/problem+json", `{"code":"`+string(refused.err.(*client.Error).Code)+`","detail":"no"}`)
		})
		_, err := c.Claim(t.Context(), "ci", client.Request{Name: "a"}, client.Wait{})
		if !errors.Is(err, refused.err) || requests.Load() != refused.requests {
			t.Errorf("%v: %d requests, %v", refused.err, requests.Load(), err)
		}
	}
}

// A pause is never shorter than Retry-After, and grows, with jitter, up to a bound. It is not begun if the time does not suffice.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	var pauses []time.Duration
	var says atomic.Value
	says.Store("1")
	c, requests := stub(t, client.Options{RetryFor: 1500 * time.Millisecond, OnRetry: func(err error, pause time.Duration) {
		if !errors.Is(err, client.ErrUnavailable) {
			t.Error(err)
		}
		pauses = append(pauses, pause)
	}}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", says.Load().(string))
		answer(w, 503, "application/problem+json", `{"code":"UNAVAILABLE","detail":"Redis is away"}`)
	})
	began := time.Now()
	_, err := c.Service(t.Context(), "ci")
	if failed := new(client.Error); !errors.As(err, &failed) || failed.RetryAfter != time.Second || failed.Detail != "Redis is away" {
		t.Errorf("%+v", err)
	}
	if len(pauses) != 1 || pauses[0] < time.Second || requests.Load() != 2 || time.Since(began) < time.Second {
		t.Errorf("%d requests, pauses %v", requests.Load(), pauses)
	}
	says.Store(time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	_, err = c.Service(t.Context(), "ci")
	if failed := new(client.Error); !errors.As(err, &failed) || failed.RetryAfter < 50*time.Minute || requests.Load() != 3 {
		t.Errorf("%+v", err)
	}
	says.Store("0")
	if _, err = c.Service(t.Context(), "ci"); !errors.Is(err, client.ErrUnavailable) || len(pauses) < 4 {
		t.Errorf("pauses %v: %v", pauses, err)
	}
	if sorted := slices.IsSorted(pauses[1:]); sorted && len(pauses) > 8 || len(pauses) > 15 {
		t.Errorf("no jitter, or no growth, in %v", pauses)
	}
	once := newClient(t, "http://127.0.0.1:1", client.Options{RetryFor: -1, OnRetry: func(error, time.Duration) { t.Error("repeated") }})
	if _, err := once.Service(t.Context(), "ci"); !errors.Is(err, client.ErrUnavailable) {
		t.Error(err)
	}
}

// A server that takes connections and says nothing, or stops in the middle of an answer, is given up at the context's end, and without
// one after the documented time.
func TestStalledServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	go func() {
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if n%2 == 1 {
				go func() {
					if _, err := conn.Read(make([]byte, 4096)); err == nil { // what comes before the request is no answer to it
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{")
					}
				}()
			}
		}
	}()
	c := newClient(t, "http://"+listener.Addr().String(), client.Options{Timeout: 50 * time.Millisecond, RetryFor: 500 * time.Millisecond})
	if _, err := c.Allocation(t.Context(), "ci", "a"); !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	c = newClient(t, "http://"+listener.Addr().String(), client.Options{})
	reason := errors.New("enough")
	ctx, end := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { end(reason) })
	if _, err := c.Allocation(ctx, "ci", "a"); !errors.Is(err, reason) || !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Error(err)
	}
	if _, err := c.Allocation(ctx, "ci", "a"); err != reason {
		t.Error("a call whose context had ended:", err)
	}
	c.Close()
	noneIsLeft(t)
}

// What is not an answer of Portmaster is an error, and is neither taken for one, nor repeated unless it may be another the next time.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	garbage := strings.Repeat("garbage!", 10<<20/8)
	for name, test := range map[string]struct {
		answer   http.HandlerFunc
		repeated bool
		code     client.Code
	}{
		"a login page":      {func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "text/html", "<html>Log in") }, false, ""},
		"10 MB of garbage":  {func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "application/json", garbage) }, false, ""},
		"10 MB and a 502":   {func(w http.ResponseWriter, _ *http.Request) { answer(w, 502, "text/html", garbage) }, true, "OUTCOME_UNKNOWN"},
		"another type":      {func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "application/json", `{"port":"x"}`) }, false, ""},
		"somebody else's":   {func(w http.ResponseWriter, _ *http.Request) { answer(w, 201, "application/json", anAllocation) }, false, ""},
		"nothing":           {func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "application/json", "") }, true, "OUTCOME_UNKNOWN"},
		"an empty object":   {func(w http.ResponseWriter, _ *http.Request) { answer(w, 201, "application/json", "{}") }, false, ""},
		"a list":            {func(w http.ResponseWriter, _ *http.Request) { answer(w, 201, "application/json", "[]") }, false, ""},
		"an error, no JSON": {func(w http.ResponseWriter, _ *http.Request) { answer(w, 500, "text/plain", "oops") }, false, ""},
		"a list of one":     {func(w http.ResponseWriter, _ *http.Request) { answer(w, 201, "application/json", "["+anAllocation+"]") }, false, ""},
		"no content":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, false, ""},
		"an unknown code": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 409, "application/problem+json", `{"code":"NEW","detail":"new"}`)
		}, false, "NEW"},
		"half, without a length": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			io.WriteString(conn, "HTTP/1.0 201 Created\r\nContent-Type: application/json\r\n\r\n"+anAllocation[:40])
			conn.Close()
		}, true, "OUTCOME_UNKNOWN"},
		"no HTTP": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			conn.Close()
		}, true, "OUTCOME_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			defer end()
			var attempts atomic.Int64
			c, requests := stub(t, client.Options{}, func(w http.ResponseWriter, r *http.Request) {
				if attempts.Add(1) == 2 {
					end() // it is repeated
				}
				test.answer(w, r)
			})
			_, err := c.Claim(ctx, "ci", client.Request{Name: "job-1", Secret: client.NewSecret()}, client.Wait{})
			failed := new(client.Error)
			if !errors.As(err, &failed) || failed.Code != test.code || len(err.Error()) > 300 || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.400v", err)
			}
			if repeated := requests.Load() > 1; repeated != test.repeated {
				t.Errorf("%d requests", requests.Load())
			}
			c, _ = stub(t, client.Options{RetryFor: -1}, test.answer)
			two := []client.Request{{Name: "a", Secret: client.NewSecret()}, {Name: "b", Secret: client.NewSecret()}}
			if all, err := c.ClaimAll(t.Context(), "ci", two, client.Wait{}); err == nil || all != nil {
				t.Error("a list:", all, err)
			}
			if err := c.Release(t.Context(), client.Allocation{Service: "ci", Name: "a", Secret: client.NewSecret()}); (err == nil) != (name == "no content") {
				t.Error("a release:", err)
			}
		})
	}
}

// An answer of 10 MB costs no more memory than the longest that can be one of Portmaster's.
func TestGarbageIsNotKept(t *testing.T) {
	chunk := bytes.Repeat([]byte("garbage!"), 1<<17)
	var sent atomic.Int64
	c, _ := stub(t, client.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for range 200 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			sent.Add(int64(len(chunk)))
		}
	})
	defer noneIsLeft(t)
	defer c.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := c.Service(t.Context(), "ci")
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 40<<20 || sent.Load() > 100<<20 {
		t.Errorf("%v, %d MB allocated, %d MB sent", err, (after.TotalAlloc-before.TotalAlloc)>>20, sent.Load()>>20)
	}
}

// A redirect is not followed, since requests contain secrets, and the error does not show one.
func TestRedirect(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	defer elsewhere.Close()
	transport := &http.Client{}
	c, requests := stub(t, client.Options{HTTP: transport}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", elsewhere.URL+r.URL.Path)
		w.WriteHeader(307)
	})
	secret := client.NewSecret()
	_, err := c.Accept(t.Context(), "ci", secret, 0)
	if failed := new(client.Error); !errors.As(err, &failed) || failed.Status != 307 || !strings.Contains(err.Error(), elsewhere.URL) {
		t.Error(err)
	}
	if strings.Contains(fmt.Sprint(err), secret) || stolen.Load() != 0 || requests.Load() != 1 || transport.CheckRedirect != nil {
		t.Errorf("%v, %d requests went elsewhere, %d here", err, stolen.Load(), requests.Load())
	}
}

// No error shows a secret, whatever went wrong.
func TestErrorsHaveNoSecret(t *testing.T) {
	t.Parallel()
	secret := client.NewSecret()
	refused, _ := stub(t, client.Options{RetryFor: -1}, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	nobody := newClient(t, "http://127.0.0.1:1", client.Options{RetryFor: -1})
	plain := newClient(t, strings.Replace(refusedURL(t), "http:", "https:", 1), client.Options{})
	for _, c := range []*client.Client{refused, nobody, plain} {
		for _, secret := range []string{secret, secret + "\x7f/..", "../" + secret} {
			_, accepted := c.Accept(t.Context(), "ci", secret, 0)
			_, renewed := c.Renew(t.Context(), client.Allocation{Service: "ci", Name: "a", Secret: secret}, 0)
			released := c.Release(t.Context(), client.Allocation{Service: "ci", Name: "a", Secret: secret})
			if len(secret) > 36 && (!errors.Is(accepted, client.ErrInvalid) || !errors.Is(released, client.ErrInvalid)) {
				t.Errorf("what is no secret is sent: %v, %v", accepted, released)
			}
			for _, err := range []error{accepted, renewed, released} {
				if failed := new(client.Error); !errors.As(err, &failed) || strings.Contains(err.Error(), secret[4:30]) {
					t.Error(err)
				}
			}
		}
	}
}

func refusedURL(t *testing.T) string {
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	return s.URL
}

// What would be another route is not sent: DELETE .../ports/.. is DELETE of the service to many servers.
func TestPaths(t *testing.T) {
	t.Parallel()
	c, requests := stub(t, client.Options{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	for _, name := range []string{"..", ".", "", "a/b", "a?b", "a%2Fb", "é", "-a", strings.Repeat("a", 65), "a\n"} {
		for _, err := range []error{
			c.Remove(t.Context(), name), c.Pool(name+"/").Remove(t.Context(), "ci"), c.Reject(t.Context(), "ci", name, false),
			c.Release(t.Context(), client.Allocation{Service: "ci", Name: name + "/"}),
			c.Release(t.Context(), client.Allocation{Service: name, Name: "a"}),
		} {
			if failed := new(client.Error); !errors.Is(err, client.ErrInvalid) || !errors.As(err, &failed) || len(failed.Fields) != 1 {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	if requests.Load() > 0 {
		t.Errorf("%d requests were sent", requests.Load())
	}
	for _, address := range []string{"", "localhost:8080", "ftp://a", "http://", "http://a?b", "http://a#b", "http://a b", "http:///v1"} {
		if _, err := client.New(address, client.Options{}); err == nil {
			t.Errorf("%q is an address", address)
		}
	}
	if _, err := client.New("http://a", client.Options{Pool: ".."}); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
}

// A release that proves nothing would take the port of the next holder if it were repeated.
func TestReleaseWithoutProof(t *testing.T) {
	t.Parallel()
	var bad atomic.Int64
	c, p := startProxy(t, client.Options{}, func(r *http.Request) fate {
		if r.Method == "DELETE" {
			return fate(bad.Load())
		}
		return passes
	})
	define(t, c, "ci", 20000, 20009)
	claim := func() client.Allocation {
		a, err := c.Claim(t.Context(), "ci", client.Request{Name: "a"}, client.Wait{})
		must(t, err)
		return a
	}
	for _, lost := range []fate{answerLost, answerHalf, answerTimedOut, neverArrives} {
		a := claim()
		bad.Store(int64(lost))
		before := p.requests.Load()
		if err := c.Release(t.Context(), client.Allocation{Service: "ci", Name: "a"}); !errors.Is(err, client.ErrOutcomeUnknown) {
			t.Error(lost, err)
		}
		if requests := p.requests.Load() - before; requests != 1 {
			t.Errorf("%d: %d requests", lost, requests)
		}
		if bad.Store(int64(passes)); lost == neverArrives {
			must(t, c.Release(t.Context(), a))
		}
	}
}

// Lists go from page to page, behind an address with a path, too, and read no more of them than they are asked for.
func TestLists(t *testing.T) {
	t.Parallel()
	var pages atomic.Int64
	c, requests := stub(t, client.Options{}, func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
		if pages.Add(1); !strings.HasPrefix(r.URL.Path, "/v1/pools/p/services/ci/ports") {
			w.WriteHeader(404)
		} else if page < 3 {
			w.Header().Set("Link", fmt.Sprintf(`</elsewhere/v1/services/ci/ports?limit=2&cursor=%d>; rel="next"`, page+1))
		}
		answer(w, 200, "application/json", "["+anAllocation+","+anAllocation+"]")
	})
	c = c.Pool("p")
	n := 0
	for _, err := range c.Allocations(t.Context(), "ci") {
		must(t, err)
		n++
	}
	if n != 8 || requests.Load() != 4 {
		t.Errorf("%d items of %d pages", n, requests.Load())
	}
	for range c.Allocations(t.Context(), "ci") {
		break
	}
	if requests.Load() != 5 {
		t.Errorf("%d pages", requests.Load())
	}
	for _, err := range c.Offers(t.Context(), "ci") {
		if err == nil {
			t.Error("no error")
		}
	}
	server := servertest.Start(t)
	real := newClient(t, server, client.Options{})
	define(t, real, "ci", 20000, 22999)
	for i := range 11 {
		requests := make([]client.Request, 100)
		for j := range requests {
			requests[j] = client.Request{Name: fmt.Sprintf("n%d-%d", i, j)}
		}
		_, err := real.ClaimAll(t.Context(), "ci", requests, client.Wait{})
		must(t, err)
	}
	for _, c := range []*client.Client{real, behindPrefix(t, server, ""), behindPrefix(t, server, "/ports")} {
		n, once := 0, map[int]bool{}
		for a, err := range c.Allocations(t.Context(), "ci") {
			must(t, err)
			if once[a.Port] || a.Count != 1 {
				t.Errorf("%+v", a)
			}
			once[a.Port] = true
			n++
		}
		if n != 1100 {
			t.Errorf("%d items", n)
		}
	}
}
