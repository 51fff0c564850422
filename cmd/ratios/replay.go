package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator"
)

// batch is how many commands go into one pipeline.
const batch = 100

// record lets an allocator take some steps, and returns the scripts that each was sent as.
func (b *bench) record(steps ...func(*allocator.Allocator) error) (sent [][][]any, err error) {
	client := redis.NewClient(b.client.Options())
	defer client.Close()
	r := &recorder{}
	client.AddHook(r)
	ports := allocator.New(client, options)
	if _, err := ports.Check(background); err != nil { // else the first step has the script that finds out which state there is
		return nil, err
	}
	for _, step := range steps {
		r.scripts = nil
		if err := step(ports); err != nil {
			return nil, err
		}
		sent = append(sent, r.scripts)
	}
	return sent, nil
}

// recorder is a hook of the client that keeps the scripts that pass it, but for those that Redis did not know.
type recorder struct{ scripts [][]any }

func (r *recorder) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (r *recorder) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		for _, c := range commands {
			if c.Name() == "evalsha" && !redis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
				r.scripts = append(r.scripts, slices.Clone(c.Args()))
			}
		}
		return err
	}
}

// replay sends each step in one plain pipeline, all of them in turn and again and again for a window, and returns the
// processor time that a script of each took Redis, in microseconds.
func (b *bench) replay(steps ...[][]any) (costs []float64, err error) {
	costs = make([]float64, len(steps))
	rounds := 0
	for start := time.Now(); rounds == 0 || time.Since(start) < b.window; rounds++ {
		for i, step := range steps {
			pipeline := b.client.Pipeline()
			for _, args := range step {
				pipeline.Do(background, args...)
			}
			before := fineCPU(b.redis)
			if _, err := pipeline.Exec(background); err != nil {
				return nil, err
			}
			costs[i] += fineCPU(b.redis) - before
		}
	}
	for i, step := range steps {
		costs[i] /= float64(rounds * len(step))
	}
	return costs, nil
}

// cost returns the processor time that a script of the first step takes Redis; the second undoes it.
func (b *bench) cost(step, undo func(*allocator.Allocator) error) (float64, error) {
	steps, err := b.record(step, undo)
	if err != nil {
		return 0, err
	}
	costs, err := b.replay(steps...)
	if err != nil {
		return 0, err
	}
	return costs[0], nil
}

func holder(i int) string { return "late-" + strconv.Itoa(i) }

func forBatch(act func(i int) error) error {
	for i := range batch {
		if err := act(i); err != nil {
			return err
		}
	}
	return nil
}

func offerBatch(ports *allocator.Allocator, pool, service string, secrets []string) error {
	return forBatch(func(i int) error {
		offers, _, err := ports.Offer(background, allocator.Caller{}, pool, service, []allocator.Request{{Name: holder(i)}}, allocator.Wait{})
		if err == nil {
			secrets[i] = offers[0].Secret
		}
		return err
	})
}
