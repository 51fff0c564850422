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

// embeddedTick is how often the TTLs of the embedded store move, which do not by themselves. A key may go so much early.
const embeddedTick = 20 * time.Millisecond

// embeddedStore starts a Redis inside the process. It listens nowhere: connections to it are pipes, which no other process
// can open.
func embeddedStore(settings config.Config, log *slog.Logger) (*store, error) {
	embedded := miniredis.NewMiniRedis()
	first, err := embedded.Dial() // starts it
	if err != nil {
		return nil, fmt.Errorf("the embedded store does not start: %w", err)
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

// tick moves the time of the embedded store's TTLs.
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

// replies is the embedded store's end of a pipe. As Redis does, it keeps what the client has not read yet: a pipe holds
// nothing, so the store would wait for a client that sends a long pipeline before it reads, and that client for the store.
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

// Close ends the connection, and with it what is unread.
func (r *replies) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.grown.Signal()
	return r.Conn.Close()
}

// send hands the client what there is as it reads, until the connection ends.
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
