package allocator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// The bounds of what a caller may request.
const (
	MaxRequests = 100                 // of one call
	MaxCount    = 100                 // consecutive ports of one request
	MaxPorts    = 256                 // of one call
	MinLease    = time.Second         // of an allocation
	MaxLease    = 30 * 24 * time.Hour // of an allocation
)

// Request is what a caller asks for: a port, or several in a row, under an instance name. What is zero is not asked for.
type Request struct {
	Name   string
	Secret string        // of the caller's own, which makes the call safe to repeat; if it is empty one is generated
	Lease  time.Duration // how long the allocation lasts, MinLease to MaxLease, in whole milliseconds; for ever where it is 0
	Port   int           // that port and no other
	Prefer int           // that port, or any other where it is taken
	Count  int           // how many consecutive ports, up to MaxCount; one where it is 0

	generated bool // the secret is none of the caller's own
}

// count is how many ports a request is for.
func (r Request) count() int { return max(r.Count, 1) }

// options are what the scripts are told of a request beside its name and secret: "" where that is nothing, "1" where it is just
// that the secret may be known already: it is the caller's own, or the call may be made again by this server.
func (r Request) options(again bool) string {
	known := again || !r.generated
	switch {
	case r.Lease != 0 || r.Port != 0 || r.Prefer != 0 || r.Count != 0:
		return fmt.Sprintf("%s %d %d %d %d", flag(known), r.Lease.Milliseconds(), r.Port, r.Prefer, r.Count)
	case known:
		return "1"
	}
	return ""
}

// generateSecrets gives each request a secret that has none.
func generateSecrets(requests []Request) {
	for i := range requests {
		if requests[i].Secret == "" {
			requests[i].Secret, requests[i].generated = uuid.NewString(), true
		}
	}
}

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
	return unavailable("the call was cancelled while it waited", cause)
}
