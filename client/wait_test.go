package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/client"
)

// full defines a service of one port, and returns who has it.
func full(t *testing.T, c *client.Client) client.Allocation {
	t.Helper()
	define(t, c, "ci", 20000, 20000)
	a, err := c.Claim(t.Context(), "ci", client.Request{Name: "first"}, client.Wait{})
	must(t, err)
	return a
}

// A call may wait longer than the server lets one request wait, which it learns from the server, and says how it goes.
func TestWaitsLongerThanARequest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	c, _ := startProxy(t, client.Options{}, func(r *http.Request) fate {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == "POST" {
			asked = append(asked, r.URL.Query().Get("wait"))
		}
		return passes
	})
	first := full(t, c)
	var told []client.Progress
	wait := client.Wait{Longest: 30 * time.Second, Progress: func(p client.Progress) {
		if told = append(told, p); len(told) == 1 {
			must(t, c.Release(t.Context(), first))
		}
	}}
	a, err := c.Claim(t.Context(), "ci", client.Request{Name: "second"}, wait)
	must(t, err)
	if a.Port != first.Port || len(told) == 0 || told[0].Waiting > 1 || told[0].Waited < maxWait {
		t.Errorf("%+v, told %+v", a, told)
	}
	if asked[0] != "" || asked[1] == "1" || asked[2] != "1" || asked[3] != "1" { // the first is that of the first claim
		t.Errorf("asked to wait for %q", asked)
	}
	began := time.Now()
	if _, err = c.Offer(t.Context(), "ci", client.Request{Name: "third"}, client.Wait{Longest: 1300 * time.Millisecond}); !errors.Is(err, client.ErrExhausted) {
		t.Error(err)
	}
	if time.Since(began) < 1300*time.Millisecond {
		t.Error("it did not wait to the end")
	}
	if _, err = c.Offer(t.Context(), "ci", client.Request{Name: "third", Port: 20000}, client.Wait{Longest: time.Minute}); !errors.Is(err, client.ErrInvalid) {
		t.Error("an exact port cannot be waited for:", err)
	}
}

// A server may let no request wait, or refuse to let another one wait. Neither makes a client ask again and again.
func TestWaitIsRefused(t *testing.T) {
	t.Parallel()
	refusals := map[string]struct {
		problem  string
		sentinel error
		requests int64 // at most
	}{
		"there is no waiting": {`{"code":"INVALID","detail":"bad","errors":[{"field":"wait","detail":"must be within 0s-0s"}]}`, client.ErrInvalid, 2},
		"an unknown bound":    {`{"code":"INVALID","detail":"bad","errors":[{"field":"wait","detail":"too long"}]}`, client.ErrInvalid, 1},
		"exhausted at once":   {`{"code":"EXHAUSTED","detail":"no"}`, client.ErrExhausted, 1},
		"too many wait":       {`{"code":"TOO_MANY_WAITING","detail":"no"}`, client.ErrTooManyWaiting, 10},
	}
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const longest = 1200 * time.Millisecond
			c, requests := stub(t, client.Options{OnRetry: func(_ error, pause time.Duration) {
				if pause > longest {
					t.Errorf("it pauses for %s", pause)
				}
			}}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "1")
				answer(w, 409, "application/problem+json", refusal.problem)
			})
			_, err := c.Claim(t.Context(), "ci", client.Request{Name: "a"}, client.Wait{Longest: longest})
			if !errors.Is(err, refusal.sentinel) || requests.Load() > refusal.requests {
				t.Errorf("%v after %d requests", err, requests.Load())
			}
		})
	}
}

// A caller who leaves while the call waits leaves nothing behind, whether the call got its port by then or not.
func TestContextEndsInAWait(t *testing.T) {
	t.Run("claims", func(t *testing.T) { leaveWaits(t, true) })
	t.Run("offers", func(t *testing.T) { leaveWaits(t, false) })
	noneIsLeft(t)
}

func leaveWaits(t *testing.T, claims bool) {
	var stalls atomic.Bool
	var arrived = make(chan struct{}, 100)
	c, p := startProxy(t, client.Options{}, func(r *http.Request) fate {
		if r.Method == "POST" && strings.Contains(r.URL.RawQuery, "wait") {
			arrived <- struct{}{}
			if stalls.Load() {
				return answerStalls
			}
		}
		return passes
	})
	longest := time.Minute
	call := func(ctx context.Context, secret string) error {
		r, wait := client.Request{Name: "second", Secret: secret}, client.Wait{Longest: longest}
		if claims {
			_, err := c.Claim(ctx, "ci", r, wait)
			return err
		}
		_, err := c.Offer(ctx, "ci", r, wait)
		return err
	}
	first := full(t, c)
	ctx, end := context.WithCancel(t.Context())
	go func() { <-arrived; <-arrived; time.Sleep(50 * time.Millisecond); end() }() // the first asked for too long a wait
	if err := call(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s, err := c.Service(t.Context(), "ci")
	must(t, err)
	if s.Waiting != 0 {
		t.Errorf("%d calls wait", s.Waiting)
	}

	longest = maxWait
	stalls.Store(true) // the port is granted, and the answer does not come
	must(t, c.Release(t.Context(), first))
	ctx, end = context.WithCancel(t.Context())
	go func() {
		soon(t, "the port is granted", func() bool { return counts(t, c, "ci").Free == 0 })
		end()
	}()
	if err := call(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if ports := counts(t, c, "ci"); ports.Free != 1 {
		t.Errorf("a port stays behind: %+v", ports)
	}

	secret := client.NewSecret() // who knows the secret may come back for the port
	ctx, end = context.WithCancel(t.Context())
	go func() {
		soon(t, "the port is granted", func() bool { return counts(t, c, "ci").Free == 0 })
		end()
	}()
	if err := call(ctx, secret); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	stalls.Store(false)
	if ports := counts(t, c, "ci"); ports.Free != 0 {
		t.Errorf("the port is gone: %+v", ports)
	}
	must(t, call(t.Context(), secret))
	c.Close()
	soon(t, "no connection is open", func() bool { return p.open.Load() == 0 })
}
