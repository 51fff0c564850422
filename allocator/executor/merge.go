package executor

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// maxMerged bounds how many calls one script takes, so that none runs long.
const maxMerged = 64

// merge returns the commands of a batch: calls that may run as one script share one, and run in the order in which they came. They
// are those of one script that differ in nothing but what is their own. All of a batch wait at the same time, so it is no matter
// which of the others they overtake.
func merge(batch []*pending) []*pending {
	type alike struct {
		script *lua.Script
		key    string // the first, which has the service in it
	}
	commands := batch[:0:0]
	first := map[alike]*pending{}
	for _, c := range batch {
		if len(batch) > 1 && c.call.Own > 0 && !c.asking {
			of := alike{c.call.Script, c.call.Keys[0]}
			if before := first[of]; before != nil && 1+len(before.riders) < maxMerged && before.call.takes(c.call) {
				before.riders = append(before.riders, c)
				continue
			}
			first[of] = c
		}
		commands = append(commands, c)
	}
	for _, c := range commands {
		keys, args := slices.Clip(c.call.Keys), slices.Clip(c.call.Args)
		for _, rider := range c.riders {
			_, ownKeys, _, ownArgs := rider.call.split()
			keys, args = append(keys, ownKeys...), append(args, ownArgs...)
		}
		c.Cmd = *redis.NewCmd(context.Background(), evalSHA(c.call.Script, keys, args)...)
	}
	return commands
}

// takes reports whether another call of the script may run in the same.
func (c Call) takes(other Call) bool {
	keys, _, args, _ := c.split()
	otherKeys, _, otherArgs, _ := other.split()
	return c.Own == other.Own && slices.Equal(keys, otherKeys) && slices.Equal(args, otherArgs)
}

// split returns the keys and the arguments of a call: those that calls in one script have in common, and its own.
func (c Call) split() (keys, ownKeys []string, args, ownArgs []any) {
	k, a := len(c.Keys)-len(c.Script.Each), len(c.Args)-c.Own
	return c.Keys[:k], c.Keys[k:], c.Args[:a], c.Args[a:]
}
