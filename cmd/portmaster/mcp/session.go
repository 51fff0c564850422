package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"portmaster/client"
)

// Session holds the ports that an agent claimed.
type Session struct {
	client *client.Client
	lease  time.Duration
	wait   time.Duration
	log    *slog.Logger

	life context.Context // ends with the session; the cause says so
	end  context.CancelFunc

	mu       sync.Mutex // guards what follows
	closed   bool
	claiming map[key]bool
	held     map[key]*keeping
	lost     map[key]int // ports that the session had for a name, and lost
	keepers  sync.WaitGroup
}

type key struct{ service, name string }

// keeping is an allocation whose lease is kept until stop.
type keeping struct {
	allocation client.Allocation
	stop       context.CancelFunc
}

// NewSession returns a session whose ports have a lease, 1 s to 30 days, which it keeps. A claim waits for so long if no port is free.
func NewSession(c *client.Client, lease, wait time.Duration, log *slog.Logger) *Session {
	s := &Session{client: c, lease: lease, wait: wait, log: log, claiming: map[key]bool{}, held: map[key]*keeping{}, lost: map[key]int{}}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// claim claims a port, unless the session has one for the name. lost is one that it had for the name before, and lost; 0: none.
func (s *Session) claim(ctx context.Context, service, name string, prefer int) (a client.Allocation, lost int, err error) {
	k := key{service, name}
	s.mu.Lock()
	have, busy := s.held[k], s.claiming[k]
	s.claiming[k] = true
	s.mu.Unlock()
	if busy {
		return a, 0, fmt.Errorf("another call of this session is about to claim a port of %s for %s", service, name)
	}
	if have == nil {
		a, err = s.claimOne(ctx, service, client.Request{Name: name, Prefer: prefer, Lease: s.lease})
	} else {
		a = have.allocation
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.claiming, k)
	if err != nil || have != nil {
		return a, 0, err
	}
	if s.closed {
		return a, 0, errors.Join(errors.New("the session has ended"), s.client.Release(context.WithoutCancel(ctx), a))
	}
	s.keep(k, a)
	lost = s.lost[k]
	delete(s.lost, k)
	return a, lost, nil
}

// claimOne claims a port, for the longest lease that the service allows if that of the request is longer.
func (s *Session) claimOne(ctx context.Context, service string, r client.Request) (client.Allocation, error) {
	a, err := s.client.Claim(ctx, service, r, client.Wait{Longest: s.wait})
	if !errors.Is(err, client.ErrInvalid) {
		return a, err
	}
	of, unread := s.client.Service(ctx, service)
	if unread != nil || of.MaxLease == 0 || of.MaxLease >= r.Lease {
		return a, err
	}
	r.Lease = of.MaxLease
	return s.client.Claim(ctx, service, r, client.Wait{Longest: s.wait})
}

// keep keeps the lease of an allocation, until it is released or lost.
func (s *Session) keep(k key, a client.Allocation) {
	life, stop := context.WithCancel(s.life)
	one := &keeping{a, stop}
	s.held[k] = one
	s.keepers.Go(func() {
		err := s.client.Keep(life, a)
		if life.Err() != nil {
			return
		}
		stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[k] == one { // or it is being released
			s.log.Warn("a port was lost", "service", k.service, "name", k.name, "port", a.Port, "error", err)
			delete(s.held, k)
			s.lost[k] = a.Port
		}
	})
}

// has reports whether an allocation is one that the session keeps.
func (s *Session) has(a client.Allocation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.held[key{a.Service, a.Name}]
	return one != nil && one.allocation.Fence == a.Fence
}

// release releases a port of the session, and returns it.
func (s *Session) release(ctx context.Context, service, name string) (port int, err error) {
	k := key{service, name}
	s.mu.Lock()
	one := s.held[k]
	delete(s.held, k)
	s.mu.Unlock()
	if one == nil {
		return 0, fmt.Errorf("this session has no port of %s for %s: list_ports tells which are yours", service, name)
	}
	err = s.client.Release(ctx, one.allocation)
	if err == nil || errors.Is(err, client.ErrPortNotFound) || errors.Is(err, client.ErrSecretMismatch) {
		one.stop()
		return one.allocation.Port, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[k] == nil && !s.closed {
		s.held[k] = one // its lease is still kept
	}
	return 0, err
}

// Close releases all ports of the session. What it cannot release within the time ends with its lease.
func (s *Session) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.keepers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for k, one := range s.held {
		if err := s.client.Release(ctx, one.allocation); err != nil && !errors.Is(err, client.ErrPortNotFound) {
			failed = errors.Join(failed, fmt.Errorf("port %d of %s ends with its lease: %w", one.allocation.Port, k.service, err))
		}
	}
	clear(s.held)
	return failed
}

// Serve serves a session over standard input and output until the agent ends it, or ctx ends. Then it releases all ports.
func Serve(ctx context.Context, s *Session, version string) error {
	err := NewServer(s, version).Run(ctx, &sdk.StdioTransport{})
	if ctx.Err() != nil {
		err = nil // the program was told to end
	}
	releasing, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	return errors.Join(err, s.Close(releasing))
}
