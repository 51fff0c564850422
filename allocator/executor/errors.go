package executor

import (
	"errors"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Outcome is what became of a call that failed.
type Outcome int

// The outcomes.
const (
	NotDone Outcome = iota + 1 // Redis did not take the call
	Unknown                    // Redis took the call and did not answer, or too few replicas confirmed the change
	Refused                    // the script, or one of its commands, answered with an error
)

// Error is why a call failed.
type Error struct {
	Outcome Outcome
	Code    string // of one that was refused: the first word of the answer
	Detail  string // the rest of that answer; else what happened, for people
	Cause   error  // what Redis or the network said; nil where that is nothing
}

func (e *Error) Error() string {
	text := e.Detail
	if e.Code != "" {
		text = e.Code + " " + text
	} else if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// halfWritten is how the answer to one of several calls begins if their script failed between its changes; see
// lua/parts/write_rest.lua.
const halfWritten = "HALF_WRITTEN "

// ErrMissing is the cause where changes are missing that the replicas had.
var ErrMissing = errors.New("changes are missing that the replicas had")

func notDone(detail string, cause error) *Error {
	return &Error{Outcome: NotDone, Detail: detail, Cause: cause}
}

func unknown(detail string, cause error) *Error {
	return &Error{Outcome: Unknown, Detail: detail, Cause: cause}
}

// nothingDone turns the unknown outcome of a call that changes nothing into what it is.
func nothingDone(err error) error {
	if hasOutcome(err, Unknown) {
		return notDone("Redis did not answer", errors.Unwrap(err))
	}
	return err
}

func hasOutcome(err error, outcome Outcome) bool {
	failed, ok := err.(*Error)
	return ok && failed.Outcome == outcome
}

// classify says what the error of a command means to who called: whether Redis refused, never heard of it, or may have
// done it.
func classify(err error) error {
	if err == nil || errors.Is(err, redis.Nil) {
		return nil
	}
	if reply, ok := errors.AsType[redis.Error](err); ok {
		if isFull(reply.Error()) {
			return notDone("Redis is full", err)
		}
		if turnedAway(reply.Error()) {
			return notDone("Redis accepts no calls at the moment", err)
		}
		code, detail, _ := strings.Cut(reply.Error(), " ")
		return &Error{Refused, code, detail, err}
	}
	if neverSent(err) {
		return notDone("Redis is away", err)
	}
	return unknown("Redis did not answer", err)
}

func isReply(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// isFull tells the error of a command that a full Redis refuses, and of a script that begins with one: Redis 6 puts other words
// in front of that.
func isFull(text string) bool {
	return strings.HasPrefix(text, "OOM ") || strings.HasPrefix(text, "ERR ") && strings.Contains(text, "-OOM command not allowed")
}

// turnedAway tells the errors with which Redis refuses a command before it runs.
func turnedAway(text string) bool {
	if isFull(text) {
		return true
	}
	code, _, _ := strings.Cut(text, " ")
	switch code {
	case "LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "TRYAGAIN", "MISCONF", "NOAUTH",
		"WRONGPASS", "NOPERM", "NOSCRIPT", "MOVED", "ASK":
		return true
	}
	return strings.HasPrefix(text, "ERR max number of clients")
}

// neverSent tells the errors of a command for which no connection was to be had.
func neverSent(err error) bool {
	if network, ok := errors.AsType[*net.OpError](err); ok && network.Op == "dial" {
		return true
	}
	return errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed)
}
