package exec

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"portmaster/client"
)

// releaseTime bounds how long exec tries to give back what it has. What it cannot give back ends with its lease.
const releaseTime = 3 * time.Second

// holder acquires the ports of an exec, and keeps their leases.
type holder struct {
	options
	client  *client.Client
	say     *messages
	waiting atomic.Bool // it does not have all of its ports yet
	lost    chan loss   // each port that is lost; it has room for all
	keeping []*lease
}

// lease is one that is renewed.
type lease struct {
	allocation client.Allocation
	stop       context.CancelFunc
	ended      chan struct{} // closed when it is renewed no longer
	lost       bool          // known when it has ended
	inUse      bool          // something still uses a port of it, although the command has exited
}

// isOver reports whether it is renewed no longer.
func (l *lease) isOver() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// loss is a port whose lease is lost, and why.
type loss struct {
	port   port
	reason error
}

func (l loss) Error() string {
	return fmt.Sprintf("lost port %d of %s: %v", l.port.allocation.Port, l.port.service, l.reason)
}

// retrying says that exec waits for the server, or for its Redis.
func (h *holder) retrying(failed error, _ time.Duration) {
	if h.waiting.Load() {
		h.say.seldom("waiting for the server: %v", failed)
	}
}

// keep renews the lease of a port until it is released or lost.
func (h *holder) keep(p port) {
	ctx, stop := context.WithCancel(context.Background())
	l := &lease{allocation: p.allocation, stop: stop, ended: make(chan struct{})}
	h.keeping = append(h.keeping, l)
	go func() {
		defer close(l.ended)
		reason := h.client.Keep(ctx, l.allocation)
		if l.lost = ctx.Err() == nil; l.lost {
			h.lost <- loss{p, reason}
		}
	}()
}

// release gives back all ports that are not lost. If it cannot, it says so.
func (h *holder) release() {
	ctx, stop := context.WithTimeout(context.Background(), releaseTime)
	defer stop()
	var released sync.WaitGroup
	for _, l := range h.keeping {
		l.stop()
		released.Go(func() {
			<-l.ended
			if l.lost {
				return
			}
			a := l.allocation
			release := h.client.Release
			if l.inUse {
				release = h.client.ReleaseInUse
			}
			err := release(ctx, a)
			if l.inUse && errors.Is(err, client.ErrInvalid) { // a server that knows no reasons
				err = h.client.Release(ctx, a)
			}
			if err == nil || errors.Is(err, client.ErrPortNotFound) || errors.Is(err, client.ErrServiceNotFound) ||
				errors.Is(err, client.ErrSecretMismatch) {
				return
			}
			h.say.line("port %d of %s comes free when its lease ends, within %s: %v", a.Port, a.Service, h.lease, err)
		})
	}
	released.Wait()
}
