package executor

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// batcher is the way of scripts to one node of Redis: a group commit. A call that finds no pipeline under way leads: it sends
// all that waits, itself included, as one plain pipeline. Those that come meanwhile wait, and one of them leads next. The
// more calls there are, the fewer round trips each costs, and a lone caller goes straight through.
//
// What it promises to each call:
//   - One that is given up while it waits is never sent.
//   - It ends within the timeout, however long others take before it.
//   - Where too many wait, it fails at once.
//   - It is sent once. Only a script that Redis did not know, and so did not run, is sent again, after it was loaded.
//   - With replicas, it is answered only when that many replicas have all that its answer rests on.
type batcher struct {
	node     redis.UniversalClient
	opts     Options
	replicas int // how many must have what a batch changed before it is answered

	mu      sync.Mutex
	waiting []*pending // in the order in which they came
	led     bool       // a batch is under way, or its leader was appointed

	trail     *trail // of this server's answers, with replicas
	confirmed string // a slot that had its number of the trail in the last batch; only who leads looks
}

// maxBatch bounds a pipeline, so that its first call does not wait long for its last.
const maxBatch = 256

// pending is one call on its way.
type pending struct {
	redis.Cmd // that runs it, and its riders
	call      Call
	riders    []*pending // calls that run in the same script, behind it
	asking    bool       // the node is to run it although the slot is still on its way there
	deadline  time.Time
	answer    any
	err       error       // how it ended
	wake      chan wakeUp // at most one lead and one done, in this order; calls of doAll share theirs
	leads     bool        // it was told to lead; guarded by batcher.mu
}

// wakeUp is what a waiting call is told.
type wakeUp int

const (
	done wakeUp = iota // it ended
	lead               // it is its turn to send what waits
)

// NoRetry is asked by go-redis, which else would send a command again by itself.
func (*pending) NoRetry() bool { return true }

func newPending(c Call, deadline time.Time) *pending {
	return &pending{call: c, deadline: deadline, wake: make(chan wakeUp, 2)}
}

// do runs a call, once, and returns its answer. A change that Redis may have made without an answer is
// of outcome Unknown.
func (b *batcher) do(ctx context.Context, c *pending) (any, error) {
	if !b.enter(c) {
		return nil, tooMany()
	}
	for {
		select {
		case word := <-c.wake:
			if word == done {
				return c.answer, c.err
			}
			b.send(b.next(c))
			b.handOver()
		case <-ctx.Done():
			if b.leave(c) {
				return nil, notDone("the call was cancelled before it was sent", ctx.Err())
			}
			return nil, unknown("the call was cancelled before Redis answered", ctx.Err())
		}
	}
}

// doAll runs calls of one deadline, each once, and returns how each ended. They enter together and wait together: whichever
// of them is told to lead, this leads. Where they are given up, nothing is known of those that were sent.
func (b *batcher) doAll(ctx context.Context, calls []*pending) []Result {
	results := make([]Result, len(calls))
	wake := make(chan wakeUp, 2*len(calls))
	for _, c := range calls {
		c.wake = wake
	}
	if !b.enter(calls...) {
		for i := range results {
			results[i].Err = tooMany()
		}
		return results
	}
	for ended := 0; ended < len(calls); {
		select {
		case word := <-wake:
			if word == done {
				ended++
				continue
			}
			b.send(b.next(calls[0]))
			b.handOver()
		case <-ctx.Done():
			for i, c := range calls {
				if b.leave(c) {
					results[i].Err = notDone("the call was cancelled before it was sent", ctx.Err())
				} else {
					results[i].Err = unknown("the call was cancelled before Redis answered", ctx.Err())
				}
			}
			return results
		}
	}
	for i, c := range calls {
		results[i] = Result{c.answer, c.err}
	}
	return results
}

func tooMany() *Error { return notDone("too many calls wait for Redis", nil) }

// enter queues calls, of which the first leads where nobody does. It is false where too many wait.
func (b *batcher) enter(calls ...*pending) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) >= b.opts.Limit {
		return false
	}
	b.waiting = append(b.waiting, calls...)
	if !b.led {
		b.appoint()
	}
	return true
}

// leave takes a call that is given up out of the queue. It is false where the call was taken from there already.
func (b *batcher) leave(c *pending) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, waits := range b.waiting {
		if waits == c {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			if c.leads {
				b.appoint()
			}
			return true
		}
	}
	return false
}

// next empties the queue of the calls that go out next, led by one of them. It takes none where that one is too late: its
// caller knows its answer, and must not wait for those of others.
func (b *batcher) next(leader *pending) []*pending {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	led := true
	b.waiting = slices.DeleteFunc(b.waiting, func(c *pending) bool {
		// One that waited for most of its time behind a Redis that hangs would only cut short those it goes with.
		late := c.deadline.Sub(now) < b.opts.Timeout/4
		if late {
			c.end(nil, notDone("Redis does not keep up", nil))
			led = led && c.wake != leader.wake
		}
		return late
	})
	if !led {
		return nil
	}
	n := min(len(b.waiting), maxBatch)
	batch := slices.Clone(b.waiting[:n])
	b.waiting = slices.Delete(b.waiting, 0, n)
	return batch
}

// handOver ends the turn of a leader.
func (b *batcher) handOver() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.appoint()
}

// appoint makes the call that has waited longest the leader; b.mu is held.
func (b *batcher) appoint() {
	b.led = len(b.waiting) > 0
	if b.led {
		first := b.waiting[0]
		first.leads = true
		first.wake <- lead
	}
}
