package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"portmaster/config"
)

// embeddedTick is how often the TTLs of the embedded store advance, since miniredis has no clock for them. A key may expire
// early by that much.
const embeddedTick = 20 * time.Millisecond

// embeddedStore starts a store inside the process. It does not listen: connections to it are pipes, which no other process
// can open.
func embeddedStore(settings config.Config, log *slog.Logger) (*store, error) {
	embedded := miniredis.NewMiniRedis()
	first, err := embedded.Dial() // starts it
	if err != nil {
		return nil, fmt.Errorf("starting the embedded store: %w", err)
	}
	first.Close()
	server := embedded.Server()
	log.Warn("state is kept inside this process and ends with it: set " + config.Prefix + "_REDIS_URL to keep it in Redis")
	s := &store{
		client: connect(&redis.UniversalOptions{
			Addrs: []string{"embedded"},
			Dialer: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				server.ServeConn(newReplies(theirs))
				return ours, nil
			},
		}, settings),
		embedded: embedded,
		stop:     make(chan struct{}),
	}
	go s.tick()
	return s, nil
}

// tick advances the TTLs of the embedded store.
func (s *store) tick() {
	ticker := time.NewTicker(embeddedTick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			s.embedded.FastForward(now.Sub(last))
			last = now
		}
	}
}

// replies is the embedded store's end of a pipe. Like Redis, it buffers what the client has not read yet. A pipe has no
// buffer: a client that sends a long pipeline before it reads and the store would wait for each other.
type replies struct {
	net.Conn
	mu     sync.Mutex
	grown  sync.Cond
	unread []byte
	closed bool
}

func newReplies(pipe net.Conn) *replies {
	r := &replies{Conn: pipe}
	r.grown.L = &r.mu
	go r.send()
	return r
}

// Write keeps b for the client.
func (r *replies) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, net.ErrClosed
	}
	r.unread = append(r.unread, b...)
	r.grown.Signal()
	return len(b), nil
}

// Close ends the connection and drops what is unread.
func (r *replies) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.grown.Signal()
	return r.Conn.Close()
}

// send writes the buffered replies to the client, until the connection ends.
func (r *replies) send() {
	for {
		r.mu.Lock()
		for len(r.unread) == 0 && !r.closed {
			r.grown.Wait()
		}
		b := r.unread
		r.unread = nil
		r.mu.Unlock()
		if len(b) == 0 {
			return
		}
		if _, err := r.Conn.Write(b); err != nil {
			r.Close()
			return
		}
	}
}
