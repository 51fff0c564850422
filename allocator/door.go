package allocator

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// door is the way of every script to Redis: a group commit. A call that finds no pipeline under way leads: it sends all
// that waits, itself included, as one plain pipeline. Those that come meanwhile wait, and one of them leads next. The more
// calls there are, the fewer round trips each costs, and a lone caller goes straight through.
//
// What it promises to each call:
//   - One that is given up while it waits is never sent.
//   - It ends within the timeout, however long others take before it.
//   - Where too many wait, it fails at once.
//   - It is sent once. Only a script that Redis did not know, and so did not run, is sent again, after it was loaded.
type door struct {
	redis   redis.UniversalClient
	timeout time.Duration
	limit   int // how many calls may wait

	mu      sync.Mutex
	waiting []*call // in the order in which they came
	led     bool    // a pipeline is under way, or its leader was appointed
}

// maxBatch bounds a pipeline, so that its first call does not wait long for its last.
const maxBatch = 256

// call is one script on its way.
type call struct {
	redis.Cmd
	script   *redis.Script
	deadline time.Time
	err      error       // how it ended
	wake     chan wakeUp // at most one lead and one done, in this order
	leads    bool        // it was told to lead; guarded by door.mu
}

// wakeUp is what a waiting call is told.
type wakeUp int

const (
	done wakeUp = iota // it ended
	lead               // it is its turn to send what waits
)

// NoRetry is asked by go-redis, which else would send a command again by itself.
func (*call) NoRetry() bool { return true }

// do runs one script, once, and returns its answer. Errors are of type *Error, but for those that no caller can be told
// anything about; a change that Redis may have made without an answer is ErrOutcomeUnknown.
func (d *door) do(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	c := &call{
		Cmd:      *redis.NewCmd(ctx, evalSHA(script, keys, args)...),
		script:   script,
		deadline: time.Now().Add(d.timeout),
		wake:     make(chan wakeUp, 2),
	}
	if !d.enter(c) {
		return nil, unavailable("too many calls wait for Redis", nil)
	}
	for {
		select {
		case word := <-c.wake:
			if word == done {
				return c.Val(), c.err
			}
			d.send(d.take())
			d.handOver()
		case <-ctx.Done():
			if d.leave(c) {
				return nil, unavailable("the call was given up before it was sent", ctx.Err())
			}
			return nil, unknown(ctx.Err())
		}
	}
}

// evalSHA returns the command that runs a script. Keys go in by pointers, which need no copy to become an any.
func evalSHA(script *redis.Script, keys []string, args []any) []any {
	command := make([]any, 0, 3+len(keys)+len(args))
	command = append(command, "evalsha", script.Hash(), len(keys))
	for i := range keys {
		command = append(command, &keys[i])
	}
	return append(command, args...)
}

// enter queues a call, which leads where nobody does. It is false where too many wait.
func (d *door) enter(c *call) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) >= d.limit {
		return false
	}
	d.waiting = append(d.waiting, c)
	if !d.led {
		d.appoint()
	}
	return true
}

// leave takes a call that is given up out of the queue. It is false where the call was taken from there already.
func (d *door) leave(c *call) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, waits := range d.waiting {
		if waits == c {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			if c.leads {
				d.appoint()
			}
			return true
		}
	}
	return false
}

// take empties the queue of the calls that go out next.
func (d *door) take() []*call {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(d.waiting), maxBatch)
	batch := make([]*call, 0, n)
	for _, c := range d.waiting[:n] {
		// One that waited for most of its time behind a Redis that hangs would only cut short those it goes with.
		if c.deadline.Sub(now) < d.timeout/4 {
			c.end(unavailable("Redis does not keep up", nil))
		} else {
			batch = append(batch, c)
		}
	}
	rest := copy(d.waiting, d.waiting[n:])
	clear(d.waiting[rest:])
	d.waiting = d.waiting[:rest]
	return batch
}

// handOver ends the turn of a leader.
func (d *door) handOver() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.appoint()
}

// appoint makes the call that has waited longest the leader; d.mu is held.
func (d *door) appoint() {
	d.led = len(d.waiting) > 0
	if d.led {
		next := d.waiting[0]
		next.leads = true
		next.wake <- lead
	}
}

// end tells a call how it ended.
func (c *call) end(err error) {
	c.err = err
	c.wake <- done
}

// send runs a batch and ends its calls. Its deadline is that of the oldest.
func (d *door) send(batch []*call) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithDeadline(context.Background(), batch[0].deadline)
	defer cancel()
	d.exec(ctx, batch)
	var again []*call
	loaded := map[string]bool{} // after a start or a failover Redis has to be told each script, once
	for _, c := range batch {
		if redis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
			hash := c.script.Hash()
			if !loaded[hash] {
				loaded[hash] = c.script.Load(ctx, d.redis).Err() == nil
			}
			if loaded[hash] {
				again = append(again, c)
				continue
			}
		}
		c.end(classify(c.Err()))
	}
	if len(again) > 0 {
		d.exec(ctx, again)
		for _, c := range again {
			c.end(classify(c.Err()))
		}
	}
}

// exec runs the commands of a batch in one round trip. Each holds its own answer or error afterwards.
func (d *door) exec(ctx context.Context, batch []*call) {
	pipeline := d.redis.Pipeline()
	for _, c := range batch {
		c.SetErr(nil)
		_ = pipeline.Process(ctx, c)
	}
	_, _ = pipeline.Exec(ctx)
}
