package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/client"
)

// lease is short, and yet longer than a busy machine stands still.
const lease = 2 * time.Second

func isRenewal(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/renew") }

// keep keeps an allocation of a service until ctx ends, and tells how that ended.
func keep(ctx context.Context, c *client.Client, a client.Allocation) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- c.Keep(ctx, a) }()
	return ended
}

func leased(t *testing.T, c *client.Client, name string, lease time.Duration) client.Allocation {
	t.Helper()
	a, err := c.Claim(t.Context(), "ci", client.Request{Name: name, Lease: lease}, client.Wait{})
	must(t, err)
	return a
}

// A lease lasts while Keep renews it, although the server is away for some of that time. Keep ends with its context.
func TestKeep(t *testing.T) {
	t.Parallel()
	var bad atomic.Int64
	var renewals atomic.Int64
	c, _ := startProxy(t, client.Options{}, func(r *http.Request) fate {
		if isRenewal(r) {
			renewals.Add(1)
			return fate(bad.Load())
		}
		return passes
	})
	define(t, c, "ci", 20000, 20009)
	reason := errors.New("enough")
	ctx, end := context.WithCancelCause(t.Context())
	const lease = 5 * time.Second
	a := leased(t, c, "a", lease)
	kept := keep(ctx, c, a)
	for _, away := range []fate{isRefused, neverArrives, answerStalls} {
		bad.Store(int64(away))
		time.Sleep(lease / 4)
		bad.Store(int64(passes))
		time.Sleep(lease * 2 / 5)
	}
	if now, err := c.Allocation(t.Context(), "ci", "a"); err != nil || now.Fence != a.Fence || renewals.Load() < 5 {
		t.Errorf("%+v, %v, %d renewals", now, err, renewals.Load())
	}
	end(reason)
	if err := <-kept; err != reason {
		t.Error(err)
	}
	for _, none := range []client.Allocation{{}, {Service: "ci", Name: "a", Secret: a.Secret}, {Service: "ci", Name: "a", Lease: lease}} {
		if err := c.Keep(t.Context(), none); !errors.Is(err, client.ErrInvalid) {
			t.Error(err)
		}
	}
}

// Keep ends with the reason for which a lease is lost: at once if the server tells, and else before anybody else can have the port.
func TestKeepEnds(t *testing.T) {
	t.Parallel()
	var bad, last, renewals atomic.Int64
	c, _ := startProxy(t, client.Options{}, func(r *http.Request) fate {
		if isRenewal(r) && bad.Load() == 0 {
			last.Store(time.Now().UnixNano())
		}
		if isRenewal(r) {
			renewals.Add(1)
			return fate(bad.Load())
		}
		return passes
	})
	define(t, c, "ci", 20000, 20009)
	lost := func(kept <-chan error, reasons ...error) {
		t.Helper()
		err := <-kept
		for _, reason := range append(reasons, client.ErrLost) {
			if !errors.Is(err, reason) {
				t.Errorf("%v is not %v", err, reason)
			}
		}
	}
	kept := keep(t.Context(), c, leased(t, c, "a", lease))
	must(t, c.Release(t.Context(), client.Allocation{Service: "ci", Name: "a"}))
	renewals.Store(0)
	lost(kept, client.ErrPortNotFound)

	kept = keep(t.Context(), c, leased(t, c, "b", lease))
	must(t, c.Release(t.Context(), client.Allocation{Service: "ci", Name: "b"}))
	leased(t, c, "b", lease)
	lost(kept, client.ErrSecretMismatch)
	if renewals.Load() > 4 { // one each, or two if one was under way
		t.Errorf("%d renewals of what was lost", renewals.Load())
	}

	for away, reason := range map[fate]*client.Error{isRefused: client.ErrUnavailable, answerStalls: client.ErrOutcomeUnknown, neverArrives: client.ErrOutcomeUnknown} {
		bad.Store(int64(passes))
		a := leased(t, c, "c", lease)
		kept = keep(t.Context(), c, a)
		time.Sleep(lease)
		bad.Store(int64(away))
		lost(kept, reason)
		since := time.Since(time.Unix(0, last.Load())) // a renewal arrives later than it was sent
		if since > lease*7/4 || since < lease*9/10 && away != answerStalls {
			t.Errorf("%d: it ended %s after the last renewal that arrived, of a lease of %s", away, since, lease)
		}
		_ = c.Release(t.Context(), a)
	}
	c.Close()
}

// A claim that waited may have its port long before the answer, or just then: Keep asks at once.
func TestKeepAfterWaiting(t *testing.T) {
	t.Parallel()
	renewed := make(chan struct{}, 100)
	var sent time.Time
	c, _ := startProxy(t, client.Options{}, func(r *http.Request) fate {
		if isRenewal(r) {
			renewed <- struct{}{}
		}
		return passes
	})
	first := full(t, c)
	time.AfterFunc(lease*9/10, func() { must(t, c.Release(t.Context(), first)) })
	sent = time.Now()
	a, err := c.Claim(t.Context(), "ci", client.Request{Name: "second", Lease: lease}, client.Wait{Longest: 10 * time.Second})
	must(t, err)
	for time.Since(sent) < lease+50*time.Millisecond {
		time.Sleep(time.Millisecond)
	}
	ctx, end := context.WithCancel(t.Context())
	kept := keep(ctx, c, a)
	<-renewed
	<-renewed
	end()
	if err := <-kept; err != context.Canceled {
		t.Error(err)
	}
	other := ownServer(t, client.Options{})
	define(t, other, "ci", 20000, 20009)
	gone := leased(t, other, "a", lease)
	must(t, other.Release(t.Context(), gone))
	time.Sleep(lease)
	if err := other.Keep(t.Context(), gone); !errors.Is(err, client.ErrPortNotFound) {
		t.Error("kept although it was over before:", err)
	}
}

// A lease that is longer than the service allows by now is kept with the longest that it allows.
func TestKeepInAServiceOfShorterLeases(t *testing.T) {
	t.Parallel()
	c := ownServer(t, client.Options{})
	define(t, c, "ci", 20000, 20009)
	all := []client.Allocation{leased(t, c, "a", 3*lease), leased(t, c, "renewed", 3*lease)}
	_, err := c.Change(t.Context(), "ci", client.Change{MaxLease: new(lease)})
	must(t, err)
	all[1], err = c.Renew(t.Context(), all[1], 0) // which the server shortens
	must(t, err)
	ctx, end := context.WithCancel(t.Context())
	ended := []<-chan error{keep(ctx, c, all[0]), keep(ctx, c, all[1])}
	time.Sleep(4 * lease)
	for _, a := range all {
		if now, err := c.Allocation(t.Context(), "ci", a.Name); err != nil || now.Fence != a.Fence || now.Expires.After(time.Now().Add(2*lease)) {
			t.Errorf("%s: %+v, %v", a.Name, now, err)
		}
	}
	end()
	for _, kept := range ended {
		if err := <-kept; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
