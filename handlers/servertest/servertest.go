// Package servertest starts servers for the tests of those who call the API.
package servertest

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"portmaster/allocator"
	"portmaster/handlers"
)

// MaxWait is how long one request may wait for a port.
const MaxWait = time.Second

// Start starts a server on a store inside this process, and returns its address. Both end with the test.
func Start(t testing.TB) (address string) {
	t.Helper()
	address, stop, err := Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return address
}

// Run is Start for more than one test: stop ends the server and the store.
func Run() (address string, stop func(), err error) {
	store := miniredis.NewMiniRedis()
	if err := store.Start(); err != nil {
		return "", nil, err
	}
	client := redis.NewClient(&redis.Options{Addr: store.Addr(), Protocol: 2, MaxRetries: -1, ContextTimeoutEnabled: true})
	a := allocator.New(client, allocator.Options{
		KeyPrefix: "portmaster", OfferTTL: 30 * time.Minute, PortMin: 1024, PortMax: 49151, Timeout: 5 * time.Second,
		MaxWait: MaxWait, Quarantine: 5 * time.Minute, History: 10_000,
	})
	server := handlers.New(a, handlers.Options{
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second,
		BodyLimit: 64 << 10, Concurrency: 200, SlowCall: time.Minute, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go server.Serve(listener)
	return "http://" + listener.Addr().String(), func() {
		server.Drain()
		server.Shutdown(5 * time.Second)
		client.Close()
		store.Close()
	}, nil
}
