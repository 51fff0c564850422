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
		last   string // key, if they have one in common
	}
	first := map[alike]*pending{}
	for _, c := range batch {
		if c.call.Many != nil && !c.asking {
			of := alike{script: c.call.Many, key: c.call.Keys[0]}
			if c.call.LastArgs > 0 {
				of.last = c.call.Keys[len(c.call.Keys)-1]
			}
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

// isLike reports whether two calls of one last key differ in nothing but what is their own.
func (c Call) isLike(other Call) bool {
	keys, args := c.split()
	otherKeys, otherArgs := other.split()
	return c.OwnArgs == other.OwnArgs && slices.Equal(keys.first, otherKeys.first) && slices.Equal(args.first, otherArgs.first) &&
		slices.Equal(args.last, otherArgs.last)
}

// parts are the keys or the arguments of a call: its own, and those before and behind them that it has in common with others.
type parts[T any] struct{ first, own, last []T }

func (c Call) split() (parts[string], parts[any]) {
	return partsOf(c.Keys, len(c.Many.Each), min(c.LastArgs, 1)), partsOf(c.Args, c.OwnArgs, c.LastArgs)
}

func partsOf[T any](all []T, own, last int) parts[T] {
	behind := len(all) - last
	before := behind - own
	return parts[T]{all[:before:before], all[before:behind], all[behind:]}
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
	if len(c.riders) == 0 {
		return evalSHA(c.call.Script, c.call.Keys, c.call.Args)
	}
	ofKeys, ofArgs := c.call.split()
	keys, args := append(ofKeys.first, ofKeys.own...), append(ofArgs.first, ofArgs.own...)
	for _, rider := range c.riders {
		ofKeys, ofArgs := rider.call.split()
		keys, args = append(keys, ofKeys.own...), append(args, ofArgs.own...)
	}
	return evalSHA(c.call.Many, append(keys, ofKeys.last...), append(args, ofArgs.last...))
}
