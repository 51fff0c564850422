package allocator

import (
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// retryAfter is what a caller is told to wait when Redis is away.
const retryAfter = time.Second

// nothingDone turns the unknown outcome of a call that changes nothing into what it is.
func nothingDone(err error) error {
	if failed, ok := errors.AsType[*Error](err); ok && failed.Code == CodeOutcomeUnknown {
		return unavailable("Redis did not answer", failed.cause)
	}
	return err
}

func unavailable(what string, cause error) *Error {
	return &Error{Code: CodeUnavailable, Detail: what + "; nothing was done", RetryAfter: retryAfter, cause: cause}
}

func unknown(what string, cause error) *Error {
	return &Error{Code: CodeOutcomeUnknown, Detail: what + "; repeat the call with the same secret", RetryAfter: retryAfter, cause: cause}
}

// classify says what the error of a command means to who called: whether Redis refused, never heard of it, or may have
// done it.
func classify(err error) error {
	if err == nil || errors.Is(err, redis.Nil) {
		return nil
	}
	if reply, ok := errors.AsType[redis.Error](err); ok {
		if known := fromScript(reply.Error()); known != nil {
			return known
		}
		if isFull(reply.Error()) {
			return unavailable("Redis is full, and takes nothing new until it has memory again", err)
		}
		if turnedAway(reply.Error()) {
			return unavailable("Redis takes no calls at the moment", err)
		}
		return err
	}
	if neverSent(err) {
		return unavailable("Redis is away", err)
	}
	return unknown("Redis did not answer", err)
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
