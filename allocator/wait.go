package allocator

import (
	"context"
	"errors"
	"time"
)

// Wait says how a call for ports may wait in line.
type Wait struct {
	Longest   time.Duration  // up to Options.MaxWait; 0: it does not wait
	Abandoned func() bool    // reports whether the client is gone at this moment; nil: it never is
	Stood     *time.Duration // if not nil, is set to how long the call stood in line, until it was woken the last time
}

// What made a call stop waiting, as the cause of its context.
var (
	ErrAbandoned = errors.New("the client hung up")
	// ErrDraining is also what the client is told, which is still there.
	ErrDraining = &Error{Code: CodeUnavailable, Detail: "the server is shutting down", RetryAfter: time.Second}
)

// givenUp returns why a call is to wait no more, nil if it may.
func (w Wait) givenUp(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case w.Abandoned != nil && w.Abandoned():
		return ErrAbandoned
	}
	return nil
}

// isGone reports whether nobody hears the answer to a call that was given up.
func isGone(cause error) bool { return cause != nil && cause != error(ErrDraining) }

// errGivenUp is the error of a call that was given up.
func errGivenUp(cause error) error {
	if !isGone(cause) {
		return cause
	}
	return unavailable("the call was given up while it waited in line", cause)
}
