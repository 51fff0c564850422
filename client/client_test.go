package client_test

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"portmaster/allocator"
	"portmaster/client"
	"portmaster/handlers"
)

// maxWait is how long one request may wait on the server of the tests.
const maxWait = time.Second

// startServer starts a server on a store inside this process. stop ends both.
func startServer() (address string, stop func()) {
	store := miniredis.NewMiniRedis()
	if err := store.Start(); err != nil {
		panic(err)
	}
	redis := redis.NewClient(&redis.Options{Addr: store.Addr(), Protocol: 2, MaxRetries: -1, ContextTimeoutEnabled: true})
	a := allocator.New(redis, allocator.Options{
		KeyPrefix: "portmaster", OfferTTL: 30 * time.Minute, PortMin: 1024, PortMax: 49151, Timeout: 5 * time.Second,
		MaxWait: maxWait, Quarantine: 5 * time.Minute,
	})
	server := handlers.New(a, handlers.Options{
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second,
		BodyLimit: 64 << 10, Concurrency: 200, SlowCall: time.Minute, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go server.Serve(listener)
	return "http://" + listener.Addr().String(), func() {
		server.Drain()
		server.Shutdown(5 * time.Second)
		redis.Close()
		store.Close()
	}
}

// newClient returns a Client of a server of the test's own.
func newClient(t *testing.T, options client.Options) *client.Client {
	address, stop := startServer()
	t.Cleanup(stop)
	c, err := client.New(address, options)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCalls(t *testing.T) {
	c, ctx := newClient(t, client.Options{}), t.Context()
	s, err := c.Define(ctx, client.Definition{Name: "ci", Start: 20000, End: 20009, Cooldown: 1500 * time.Millisecond})
	must(t, err)
	if s.Ports.Total != 10 || s.Cooldown != 1500*time.Millisecond || s.Created.IsZero() {
		t.Errorf("%+v", s)
	}
	o, err := c.Offer(ctx, "ci", client.Request{Name: "a", Lease: 90 * time.Second}, client.Wait{})
	must(t, err)
	a, err := c.Accept(ctx, "ci", o.Secret, 0)
	must(t, err)
	if a.Lease != 90*time.Second || a.Secret != o.Secret || a.Count != 1 {
		t.Errorf("%+v", a)
	}
	a, err = c.Renew(ctx, a, time.Hour)
	must(t, err)
	must(t, c.Release(ctx, a))
	b, err := c.Claim(ctx, "ci", client.Request{Name: "b", Count: 9}, client.Wait{})
	must(t, err)
	if b.Count != 9 || b.Lease != 0 {
		t.Errorf("%+v", b)
	}
	for a, err := range c.Allocations(ctx, "ci") {
		must(t, err)
		if a.Port != b.Port {
			t.Errorf("%+v", a)
		}
	}
}
