package allocator

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// retryAfter is what a caller is told to wait when Redis is away.
const retryAfter = time.Second

// once is a command that the client library never sends a second time by itself: not every script may run twice
// unnoticed, and who called decides.
type once struct{ *redis.Cmd }

// NoRetry is asked by go-redis before it sends a command again.
func (once) NoRetry() bool { return true }

func newOnce(ctx context.Context, args ...any) once { return once{redis.NewCmd(ctx, args...)} }

// call runs one script, at most once, and returns its answer. Errors are of type *Error; a change that Redis may have
// made without an answer is ErrOutcomeUnknown.
func (a *Allocator) call(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		cmd := newOnce(ctx, evalSHA(script, keys, args)...)
		err := a.redis.Process(ctx, cmd)
		if err == nil || errors.Is(err, redis.Nil) {
			return cmd.Val(), nil
		}
		// An unknown script did not run: after a restart or a failover Redis has to be told each once.
		if attempt == 0 && redis.HasErrorPrefix(err, "NOSCRIPT") {
			if err = script.Load(ctx, a.redis).Err(); err == nil {
				continue
			}
		}
		return nil, classify(err)
	}
}

// read runs one script that changes nothing: where no answer came, nothing was done.
func (a *Allocator) read(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	answer, err := a.call(ctx, script, keys, args...)
	return answer, nothingDone(err)
}

// nothingDone turns the unknown outcome of a call that changes nothing into what it is.
func nothingDone(err error) error {
	if failed, ok := errors.AsType[*Error](err); ok && failed.Code == CodeOutcomeUnknown {
		return &Error{Code: CodeUnavailable, Detail: "Redis did not answer; nothing was done", RetryAfter: retryAfter, cause: failed.cause}
	}
	return err
}

func evalSHA(script *redis.Script, keys []string, args []any) []any {
	command := make([]any, 0, 3+len(keys)+len(args))
	command = append(command, "EVALSHA", script.Hash(), len(keys))
	for _, key := range keys {
		command = append(command, key)
	}
	return append(command, args...)
}

// classify says what a failed call means to who called: whether Redis refused, never heard of it, or may have done it.
func classify(err error) error {
	var reply redis.Error
	if errors.As(err, &reply) {
		if known := fromScript(reply.Error()); known != nil {
			return known
		}
		if refusedWhole(reply.Error()) {
			return &Error{Code: CodeUnavailable, Detail: "Redis refuses calls at the moment; nothing was done", RetryAfter: retryAfter, cause: err}
		}
		return err
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed) {
		return &Error{Code: CodeUnavailable, Detail: "Redis is away; nothing was done", RetryAfter: retryAfter, cause: err}
	}
	return &Error{Code: CodeOutcomeUnknown, Detail: "Redis did not answer; repeat the call with the same secret", RetryAfter: retryAfter, cause: err}
}

// refusedWhole tells the errors with which Redis turns a command away before it runs.
func refusedWhole(text string) bool {
	for _, prefix := range []string{"LOADING ", "BUSY ", "READONLY ", "MASTERDOWN ", "CLUSTERDOWN ", "NOREPLICAS ", "TRYAGAIN ", "OOM ", "MISCONF ", "NOAUTH ", "WRONGPASS ", "NOPERM ", "ERR max number of clients"} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}
