package executor

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// The commands that are sent by themselves: what they do needs no script, and is no part of a call that many make. Each can be
// repeated, so an outcome that is not known is NotDone.

// within runs a command within the timeout of a call.
func within[T any](ctx context.Context, e *Executor, name string, command func(context.Context) (T, error)) (T, error) {
	ended := func(error) {}
	if e.opts.Trace != nil {
		ended = e.opts.Trace(ctx, name)
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.Timeout)
	defer cancel()
	answer, err := command(ctx)
	err = nothingDone(classify(err))
	ended(failure(err))
	return answer, err
}

// Get reads a STRING, "" if there is none.
func (e *Executor) Get(ctx context.Context, key string) (string, error) {
	return within(ctx, e, "GET", func(ctx context.Context) (string, error) { return e.client.Get(ctx, key).Result() })
}

// Set writes a STRING, which stays for ever if ttl is 0.
func (e *Executor) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	_, err := within(ctx, e, "SET", func(ctx context.Context) (string, error) { return e.client.Set(ctx, key, value, ttl).Result() })
	return err
}

// Unlink deletes a key.
func (e *Executor) Unlink(ctx context.Context, key string) error {
	_, err := within(ctx, e, "UNLINK", func(ctx context.Context) (int64, error) { return e.client.Unlink(ctx, key).Result() })
	return err
}

// Time reads the clock of Redis.
func (e *Executor) Time(ctx context.Context) (time.Time, error) {
	return within(ctx, e, "TIME", func(ctx context.Context) (time.Time, error) { return e.client.Time(ctx).Result() })
}

// Fields reads fields of a HASH: a string each, or nil if it has none of that name.
func (e *Executor) Fields(ctx context.Context, key string, fields ...string) ([]any, error) {
	return within(ctx, e, "HMGET", func(ctx context.Context) ([]any, error) { return e.client.HMGet(ctx, key, fields...).Result() })
}

// HashFields are some fields of a HASH.
type HashFields struct {
	Key    string
	Fields []string
}

// EachFields is Fields for several HASHes of one slot: a command for each, all of which are sent together.
func (e *Executor) EachFields(ctx context.Context, hashes []HashFields) ([][]any, error) {
	return within(ctx, e, "HMGET", func(ctx context.Context) ([][]any, error) {
		commands := make([]*redis.SliceCmd, len(hashes))
		_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, hash := range hashes {
				commands[i] = p.HMGet(ctx, hash.Key, hash.Fields...)
			}
			return nil
		})
		answers := make([][]any, len(hashes))
		for i, command := range commands {
			answers[i] = command.Val()
		}
		return answers, err
	})
}

// Members reads a SET, in order. No command looks at many more than 1,000 of them.
func (e *Executor) Members(ctx context.Context, key string) ([]string, error) {
	return within(ctx, e, "SSCAN", func(ctx context.Context) (members []string, err error) {
		for cursor := uint64(0); ; {
			var some []string
			if some, cursor, err = e.client.SScan(ctx, key, cursor, "", 1000).Result(); err != nil {
				return nil, err
			}
			members = append(members, some...)
			if cursor == 0 {
				slices.Sort(members) // some may have come twice
				return slices.Compact(members), nil
			}
		}
	})
}

// Scored is a member of a ZSET.
type Scored struct {
	Member string
	Score  float64
}

// Around reads of a ZSET the last member whose score is at most score, and the first members above that one, up to count.
func (e *Executor) Around(ctx context.Context, key string, score, count int) ([]Scored, error) {
	return within(ctx, e, "ZRANGEBYSCORE", func(ctx context.Context) (found []Scored, err error) {
		at := strconv.Itoa(score)
		var below, above *redis.ZSliceCmd
		_, err = e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			below = p.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: "-inf", Max: at, Count: 1})
			above = p.ZRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: "(" + at, Max: "+inf", Count: int64(count)})
			return nil
		})
		for _, z := range append(below.Val(), above.Val()...) {
			member, _ := z.Member.(string)
			found = append(found, Scored{member, z.Score})
		}
		return found, err
	})
}

// Listen hears the messages of a channel until ctx ends. It connects again by itself; joined is called each time that it is
// connected, since it may have missed some.
func (e *Executor) Listen(ctx context.Context, channel string, joined func(), heard func(message string)) {
	subscription := e.client.Subscribe(ctx, channel)
	defer subscription.Close()
	words := subscription.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return
		case word, ok := <-words:
			if !ok {
				return
			}
			switch word := word.(type) {
			case *redis.Subscription:
				joined()
			case *redis.Message:
				heard(word.Payload)
			}
		}
	}
}
