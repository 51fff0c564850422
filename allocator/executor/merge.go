package executor

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// maxMerged bounds how many calls one script takes, so that none runs long.
const maxMerged = 64

// merge returns the commands of a batch: calls that may run as one script share one.
func merge(batch []*pending) []*pending {
	commands := batch
	if len(batch) > 1 {
		commands = shared(batch)
	}
	for _, c := range commands {
		c.Cmd = *redis.NewCmd(context.Background(), c.command()...)
	}
	return commands
}

// shared lets calls ride with the first that differs from them in nothing but what is its own, in the order in which they came, and
// returns the others. All of a batch wait at the same time, so it is no matter which of the others they overtake.
func shared(batch []*pending) (commands []*pending) {
	type alike struct {
		script *lua.Script
		key    string // the first, which has the service in it
	}
	first := map[alike]*pending{}
	for _, c := range batch {
		if c.call.Many != nil && !c.asking {
			of := alike{c.call.Many, c.call.Keys[0]}
			if before := first[of]; before != nil && 1+len(before.riders) < maxMerged && before.call.isLike(c.call) {
				before.riders = append(before.riders, c)
				continue
			}
			first[of] = c
		}
		commands = append(commands, c)
	}
	return commands
}

// isLike reports whether two calls differ in nothing but what is their own.
func (c Call) isLike(other Call) bool {
	keys, _, args, _ := c.split()
	otherKeys, _, otherArgs, _ := other.split()
	return c.OwnArgs == other.OwnArgs && slices.Equal(keys, otherKeys) && slices.Equal(args, otherArgs)
}

// split returns the keys and the arguments of a call: those that it has in common with others, and its own.
func (c Call) split() (keys, ownKeys []string, args, ownArgs []any) {
	k, a := len(c.Keys)-len(c.Many.Each), len(c.Args)-c.OwnArgs
	return c.Keys[:k], c.Keys[k:], c.Args[:a], c.Args[a:]
}

// script returns the one that runs a call and its riders.
func (c *pending) script() *lua.Script {
	if len(c.riders) > 0 {
		return c.call.Many
	}
	return c.call.Script
}

// command returns the command that runs a call and its riders.
func (c *pending) command() []any {
	keys, args := slices.Clip(c.call.Keys), slices.Clip(c.call.Args)
	for _, rider := range c.riders {
		_, ownKeys, _, ownArgs := rider.call.split()
		keys, args = append(keys, ownKeys...), append(args, ownArgs...)
	}
	return evalSHA(c.script(), keys, args)
}
