package main

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/redis/go-redis/v9"
)

// dialing looks after connections that cannot be had. Whatever keeps one from being opened becomes a *net.OpError of
// "dial", from which the allocator sees that nothing was sent.
type dialing struct{}

// DialHook is called by go-redis.
func (dialing) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if errors.Is(err, redis.Nil) { // which would read as an answer of the command that the connection was for
			err = errNoMaster
		}
		return conn, notConnected(err)
	}
}

// ProcessHook is called by go-redis.
func (dialing) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook is called by go-redis. Where Redis refused the login there is no connection, and go-redis leaves the
// commands of a pipeline without an error, as if they had succeeded.
func (dialing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		failed := func(c redis.Cmder) bool { return c.Err() != nil }
		if err != nil && !slices.ContainsFunc(commands, failed) {
			for _, c := range commands {
				c.SetErr(err)
			}
		}
		return err
	}
}

// errNoMaster is what Sentinels answer where they do not know a name.
var errNoMaster = errors.New("the Sentinels know no master of that name")

func notConnected(err error) error {
	if network, ok := errors.AsType[*net.OpError](err); err == nil || ok && network.Op == "dial" {
		return err
	}
	return &net.OpError{Op: "dial", Net: "redis", Err: err}
}
