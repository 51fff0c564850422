package main

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/redis/go-redis/v9"
)

// dialing handles connections that cannot be opened. It turns every such error into a *net.OpError of "dial", by which the
// allocator knows that nothing was sent.
type dialing struct{}

// DialHook is called by go-redis.
func (dialing) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if errors.Is(err, redis.Nil) { // which would look like a reply to the command that needed the connection
			err = errNoMaster
		}
		return conn, notConnected(err)
	}
}

// ProcessHook is called by go-redis.
func (dialing) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook is called by go-redis. If Redis refuses the login, go-redis leaves the commands of a pipeline without
// an error, as if they had succeeded.
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

// errNoMaster is returned if the Sentinels do not know the name of the master.
var errNoMaster = errors.New("the Sentinels know no master of that name")

func notConnected(err error) error {
	if network, ok := errors.AsType[*net.OpError](err); err == nil || ok && network.Op == "dial" {
		return err
	}
	return &net.OpError{Op: "dial", Net: "redis", Err: err}
}
