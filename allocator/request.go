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
	MaxRequests = 100 // of one call
	MaxCount    = 100 // consecutive ports of one request
	MaxPorts    = 256 // of one call
	MaxAlign    = 64
	MinLease    = time.Second         // of an allocation
	MaxLease    = 30 * 24 * time.Hour // of an allocation
)

// Request is what a caller asks for: a port, or several in a row, under an instance name. What is nil is not asked for.
type Request struct {
	Name   string
	Secret string         // client-supplied, which makes the call safe to repeat; if it is empty, one is generated
	Lease  *time.Duration // how long the allocation lasts, MinLease to MaxLease, in whole milliseconds; nil: until it is released
	Port   *int           // that port and no other
	Prefer *int           // that port, or any other if it is taken
	Count  *int           // how many consecutive ports, 1 to MaxCount; nil: one
	Align  *int           // the first port is a multiple of it, 2 to MaxAlign; nil: any
	Labels Labels         // what others are to know of it; "": nothing

	// Existing, in a claim, takes the allocation that the name has for the answer, if it has one, whatever else is asked for.
	Existing bool

	generated bool // the secret was generated here
}

// valueOf returns the value of an optional field, and zero if it is absent.
func valueOf[T int | time.Duration](field *T) T {
	if field == nil {
		return 0
	}
	return *field
}

// count returns how many ports a request is for.
func (r Request) count() int { return max(valueOf(r.Count), 1) }

// isForAny reports whether a request is for one port, whichever comes next.
func (r Request) isForAny() bool {
	return r.Port == nil && r.Prefer == nil && r.Count == nil && r.Align == nil
}

// options returns what the scripts for all cases are told of a request beside its name and secret; see lua/ports/offer.lua.
func (r Request) options(again bool) string {
	options := r.plainOptions(again)
	if r.Existing {
		options += " existing"
	}
	return r.Labels.behind(options)
}

// plainOptions returns the options without what may stand behind them: "" if that is nothing, "1" if it is only that the secret may be
// known already: the client supplied it, or this server may repeat the call.
func (r Request) plainOptions(again bool) string {
	known := again || !r.generated
	switch {
	case !r.isForAny() || r.Lease != nil:
		options := fmt.Sprintf("%s %d %d %d %d",
			flag(known), valueOf(r.Lease).Milliseconds(), valueOf(r.Port), valueOf(r.Prefer), valueOf(r.Count))
		if r.Align != nil {
			options += fmt.Sprintf("x%d", *r.Align)
		}
		return options
	case known:
		return "1"
	}
	return ""
}

// generateSecrets gives a secret to each request that has none.
func generateSecrets(requests []Request) {
	for i := range requests {
		if requests[i].Secret == "" {
			requests[i].Secret, requests[i].generated = uuid.NewString(), true
		}
	}
}

// Wait says how a call for ports may wait.
type Wait struct {
	Longest   time.Duration  // how long at most, up to Options.MaxWait; 0: it does not wait
	Abandoned func() bool    // reports whether the client is gone at this moment; nil: it never is
	Stood     *time.Duration // if not nil, is set to how long the call was on the waitlist until it was woken last
}

// What made a call stop waiting, as the cause of its context.
var (
	ErrAbandoned = errors.New("the client hung up")
	// ErrDraining is also the error of the call, since the client is still there.
	ErrDraining = &Error{Code: CodeUnavailable, Detail: "the server is shutting down", RetryAfter: time.Second}
)

// givenUp returns why a call must not wait any longer; nil if it may.
func (w Wait) givenUp(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case w.Abandoned != nil && w.Abandoned():
		return ErrAbandoned
	}
	return nil
}

// isGone reports whether no client is left to hear the answer to a call that was given up.
func isGone(cause error) bool { return cause != nil && cause != error(ErrDraining) }

// errGivenUp returns the error of a call that was given up.
func errGivenUp(cause error) error {
	if !isGone(cause) {
		return cause
	}
	return unavailable("the call was cancelled while it waited", cause)
}
