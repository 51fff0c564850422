package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrLost is why Keep ended, unless its context did.
var ErrLost = errors.New("the lease is lost")

// Keep renews the lease of an allocation at a third of Allocation.Lease, until ctx ends, whose cause it then returns, or until the
// lease is lost: then it returns an error that wraps ErrLost and the reason. The reason is ErrPortNotFound or ErrServiceNotFound (it
// ended, or somebody released it), ErrSecretMismatch (its name has another allocation by now), or what the last renewal failed with
// if a whole lease has passed since the last one that succeeded was sent. From then on the port may be somebody else's.
//
// Time passes for Keep by the clock on the wall as well, since timers stand still while a machine is suspended. If a third of the
// lease may be over when Keep is called, as after a claim that waited, it renews at once, and has a third of the lease to succeed.
//
// If the service allows only a shorter lease by now, the allocation is kept with the longest that it allows.
//
// The allocation is one that this client claimed, accepted or renewed. To keep one that it read, set Secret and Lease. Keep does not
// release it.
func (c *Client) Keep(ctx context.Context, a Allocation) error {
	if a.Lease <= 0 || a.Secret == "" {
		return &Error{Code: ErrInvalid.Code, Detail: "only an allocation with a lease and a secret can be kept"}
	}
	if a.sent.IsZero() || passed(a.sent) > a.Lease*2/3 {
		a.sent = time.Now().Add(-a.Lease * 2 / 3)
	}
	once := *c // one attempt for each renewal: what follows is up to Keep
	once.options.RetryFor = -1
	timeout := min(max(a.Lease/10, 200*time.Millisecond), c.options.Timeout)
	ticker := time.NewTicker(min(a.Lease/30, time.Second))
	defer ticker.Stop()
	type result struct {
		renewed Allocation
		err     error
	}
	results := make(chan result, 1) // of the one renewal that is under way
	renewing, stop := context.WithCancel(ctx)
	defer stop()
	busy, last := false, error(ErrOutcomeUnknown)
	from, pause := a.sent, a.Lease/3 // until the next renewal
	for {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case passed(a.sent) >= a.Lease:
			return fmt.Errorf("%w: no renewal within %s; the last: %w", ErrLost, a.Lease, last)
		case !busy && passed(from) >= pause:
			busy = true
			go func() {
				renewed, err := once.renewWithin(renewing, a, timeout)
				results <- result{renewed, err}
			}()
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case r := <-results:
			busy, last = false, r.err
			switch {
			case r.err == nil:
				a.sent, last = r.renewed.sent, ErrOutcomeUnknown
				if a.Lease != r.renewed.Lease {
					a.Lease = r.renewed.Lease
					timeout = min(max(a.Lease/10, 200*time.Millisecond), c.options.Timeout)
					ticker.Reset(min(a.Lease/30, time.Second))
				}
				from, pause = a.sent, a.Lease/3
			case ctx.Err() != nil: // the loop ends with it
			case errors.Is(r.err, ErrPortNotFound), errors.Is(r.err, ErrServiceNotFound), errors.Is(r.err, ErrSecretMismatch):
				return fmt.Errorf("%w: %w", ErrLost, r.err)
			default:
				from, pause = time.Now(), max(a.Lease/20+rand.N(a.Lease/20), min(lastOf(r.err).RetryAfter, a.Lease/6))
				if c.options.OnRetry != nil {
					c.options.OnRetry(r.err, pause)
				}
			}
		}
	}
}

// renewWithin renews the lease of an allocation, or, if that is longer than the service allows by now, the longest that it allows.
func (c *Client) renewWithin(ctx context.Context, a Allocation, timeout time.Duration) (Allocation, error) {
	renewed, err := c.renew(ctx, a, a.Lease, timeout)
	if !errors.Is(err, ErrInvalid) {
		return renewed, err
	}
	s, unread := c.Service(ctx, a.Service)
	if unread != nil || s.MaxLease == 0 || s.MaxLease >= a.Lease {
		return renewed, err
	}
	return c.renew(ctx, a, s.MaxLease, timeout)
}

// passed returns how much time passed since then, by the clock that passed more: one of them stands still while the machine is
// suspended, and the other may be set.
func passed(since time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}
