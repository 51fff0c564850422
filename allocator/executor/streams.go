package executor

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// The commands that read STREAMs. All keys of a call are in one slot. Like the commands of commands.go they are sent by themselves,
// and can be repeated.

// Entry is one entry of a STREAM.
type Entry = redis.XMessage

// Backwards reads entries of a STREAM from the newest to the oldest: count of them at most, with ids from high down to low.
func (e *Executor) Backwards(ctx context.Context, key, high, low string, count int) ([]Entry, error) {
	return within(ctx, e, "XREVRANGE", func(ctx context.Context) ([]Entry, error) {
		return e.client.XRevRangeN(ctx, key, high, low, int64(count)).Result()
	})
}

// Forwards reads entries of a STREAM from the oldest to the newest: count of them at most, with ids from low up to high.
func (e *Executor) Forwards(ctx context.Context, key, low, high string, count int) ([]Entry, error) {
	return within(ctx, e, "XRANGE", func(ctx context.Context) ([]Entry, error) {
		return e.client.XRangeN(ctx, key, low, high, int64(count)).Result()
	})
}

// keysPerPipeline bounds how many STREAMs one pipeline looks at, so that other calls do not wait long behind it.
const keysPerPipeline = 250

// Lengths returns how many entries each of some STREAMs has.
func (e *Executor) Lengths(ctx context.Context, slot string, keys []string) ([]int, error) {
	return ofEach(ctx, e, "XLEN", slot, keys, func(ctx context.Context, p redis.Pipeliner, _ int, key string) func() int {
		reply := p.XLen(ctx, key)
		return func() int { return int(reply.Val()) }
	})
}

// Newest reads the newest entry of each of some STREAMs. One without has an empty ID.
func (e *Executor) Newest(ctx context.Context, slot string, keys []string) ([]Entry, error) {
	return ofEach(ctx, e, "XREVRANGE", slot, keys, func(ctx context.Context, p redis.Pipeliner, _ int, key string) func() Entry {
		return firstOf(p.XRevRangeN(ctx, key, "+", "-", 1))
	})
}

// Oldest reads the oldest entry of each of some STREAMs. One without has an empty ID.
func (e *Executor) Oldest(ctx context.Context, slot string, keys []string) ([]Entry, error) {
	return ofEach(ctx, e, "XRANGE", slot, keys, func(ctx context.Context, p redis.Pipeliner, _ int, key string) func() Entry {
		return firstOf(p.XRangeN(ctx, key, "-", "+", 1))
	})
}

// At reads the entry of each of some STREAMs that has a given id. One without has an empty ID.
func (e *Executor) At(ctx context.Context, slot string, keys, ids []string) ([]Entry, error) {
	return ofEach(ctx, e, "XRANGE", slot, keys, func(ctx context.Context, p redis.Pipeliner, i int, key string) func() Entry {
		return firstOf(p.XRangeN(ctx, key, ids[i], ids[i], 1))
	})
}

func firstOf(reply *redis.XMessageSliceCmd) func() Entry {
	return func() (first Entry) {
		if found := reply.Val(); len(found) > 0 {
			first = found[0]
		}
		return first
	}
}

// ofEach sends a command for each of some keys, and returns their answers. ask adds one to a pipeline, and returns what reads its
// answer.
func ofEach[T any](
	ctx context.Context, e *Executor, name, slot string, keys []string, ask func(context.Context, redis.Pipeliner, int, string) func() T,
) (all []T, err error) {
	all = make([]T, 0, len(keys))
	for some := range slices.Chunk(keys, keysPerPipeline) {
		answers, err := onNode(ctx, e, name, slot, func(ctx context.Context, node redis.UniversalClient) ([]T, error) {
			answers, of := make([]T, len(some)), make([]func() T, len(some))
			_, err := node.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i, key := range some {
					of[i] = ask(ctx, p, len(all)+i, key)
				}
				return nil
			})
			for i, answer := range of {
				answers[i] = answer()
			}
			return answers, err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, answers...)
	}
	return all, nil
}

// Reading is what ReadStreams is to read, in this order.
type Reading struct {
	Slot   string
	Listed string   // a ZSET, "" for none
	Most   int      // how many of its members at most
	Keys   []string // STREAMs
	After  []string // of each the id after which it is read
	Count  int      // how many entries of each at most
}

// Read is the answer of ReadStreams.
type Read struct {
	Now     time.Time // of the node, before the rest was read
	Listed  []string
	Entries [][]Entry // of each STREAM
}

// ReadStreams reads what has come into some STREAMs, without waiting.
func (e *Executor) ReadStreams(ctx context.Context, r Reading) (Read, error) {
	return onNode(ctx, e, "XREAD", r.Slot, func(ctx context.Context, node redis.UniversalClient) (answer Read, err error) {
		var now *redis.TimeCmd
		var listed *redis.StringSliceCmd
		var streams *redis.XStreamSliceCmd
		_, err = node.Pipelined(ctx, func(p redis.Pipeliner) error {
			now = p.Time(ctx)
			if r.Listed != "" {
				listed = p.ZRange(ctx, r.Listed, 0, int64(r.Most)-1)
			}
			if len(r.Keys) > 0 {
				streams = p.XRead(ctx, &redis.XReadArgs{Streams: slices.Concat(r.Keys, r.After), Count: int64(r.Count), Block: -1})
			}
			return nil
		})
		if classify(err) != nil {
			return Read{}, err
		}
		answer = Read{Now: now.Val(), Entries: make([][]Entry, len(r.Keys))}
		if listed != nil {
			answer.Listed = listed.Val()
		}
		if streams != nil {
			at := make(map[string]int, len(r.Keys))
			for i, key := range r.Keys {
				at[key] = i
			}
			for _, s := range streams.Val() {
				answer.Entries[at[s.Stream]] = s.Messages
			}
		}
		return answer, nil
	})
}

// onNode runs commands on the master of a slot, within the timeout of a call.
func onNode[T any](
	ctx context.Context, e *Executor, name, slot string, commands func(context.Context, redis.UniversalClient) (T, error),
) (answer T, err error) {
	return within(ctx, e, name, func(ctx context.Context) (T, error) {
		cluster, ok := e.client.(*redis.ClusterClient)
		if !ok {
			return commands(ctx, e.client)
		}
		node, err := cluster.MasterForKey(ctx, slot)
		if err != nil {
			return answer, err
		}
		if answer, err = commands(ctx, node); err != nil {
			cluster.ReloadState(ctx) // the slot may have moved, or the master have a successor
		}
		return answer, err
	})
}

// Waiter waits for entries of STREAMs of one slot, on a connection of its own: a command that waits would hold up others.
type Waiter struct {
	executor *Executor
	slot     string
	node     *redis.Client // of the slot when the connection was made
	own      *redis.Client
}

// Waiter returns one that has not connected yet. It is for one goroutine, which has to close it.
func (e *Executor) Waiter(slot string) *Waiter { return &Waiter{executor: e, slot: slot} }

// Wait returns when a STREAM has an entry after its id, or a time is over. Sooner or later it notices that the slot has another
// master; until then, and after an error, it is no more than a pause.
func (w *Waiter) Wait(ctx context.Context, keys, after []string, pause time.Duration) {
	began := time.Now()
	if err := w.wait(ctx, keys, after, pause); err != nil {
		w.Close()
		select {
		case <-time.After(pause - time.Since(began)):
		case <-ctx.Done():
		}
	}
}

func (w *Waiter) wait(ctx context.Context, keys, after []string, pause time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, pause+w.executor.opts.Timeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	return classify(w.own.XRead(ctx, &redis.XReadArgs{
		Streams: slices.Concat(keys, after), Count: 1, Block: max(pause, time.Millisecond),
	}).Err())
}

// connect finds the master of the slot. The connection is made by the first command.
func (w *Waiter) connect(ctx context.Context) error {
	node, isNode := w.executor.client.(*redis.Client)
	if cluster, ok := w.executor.client.(*redis.ClusterClient); ok {
		var err error
		if node, err = cluster.MasterForKey(ctx, w.slot); err != nil {
			return err
		}
	} else if !isNode {
		return notDone("a store of this kind cannot be waited for", nil)
	}
	if w.own != nil && w.node == node {
		return nil
	}
	w.Close()
	options := *node.Options()
	options.PoolSize, options.MinIdleConns, options.MaxIdleConns, options.MaxActiveConns = 1, 0, 1, 0
	w.node, w.own = node, redis.NewClient(&options)
	return nil
}

// Close ends the connection.
func (w *Waiter) Close() {
	if w.own != nil {
		w.own.Close()
	}
	w.node, w.own = nil, nil
}
