package executor

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// batcher is the way of scripts to one node of Redis: a group commit. A call that finds no pipeline under way sends itself at once.
// Those that come meanwhile wait, and go out together as one plain pipeline when the answers to the one before are there. The more
// calls there are, the fewer round trips each costs, and a lone caller goes straight through.
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
	sends   bool       // a batch is under way

	trail     *trail // of this server's answers, with replicas
	confirmed string // a slot that had its number of the trail in the last batch; only who sends looks
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
	err       error         // how it ended
	ended     chan struct{} // gets one word when it did; calls of doAll share theirs
}

// NoRetry is asked by go-redis, which else would send a command again by itself.
func (*pending) NoRetry() bool { return true }

func newPending(c Call, deadline time.Time) *pending {
	return &pending{call: c, deadline: deadline, ended: make(chan struct{}, 1)}
}

// do runs a call, once, and returns its answer. A change that Redis may have made without an answer is
// of outcome Unknown.
func (b *batcher) do(ctx context.Context, c *pending) (any, error) {
	if !b.enter(c) {
		return nil, tooMany()
	}
	select {
	case <-c.ended:
		return c.answer, c.err
	case <-ctx.Done():
		return nil, b.giveUp(ctx, c)
	}
}

// doAll runs calls of one deadline, each once, and returns how each ended. They enter together and wait together. Where they are
// given up, nothing is known of those that were sent.
func (b *batcher) doAll(ctx context.Context, calls []*pending) []Result {
	results := make([]Result, len(calls))
	ended := make(chan struct{}, len(calls))
	for _, c := range calls {
		c.ended = ended
	}
	if !b.enter(calls...) {
		for i := range results {
			results[i].Err = tooMany()
		}
		return results
	}
	for range calls {
		select {
		case <-ended:
		case <-ctx.Done():
			for i, c := range calls {
				results[i].Err = b.giveUp(ctx, c)
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

// enter queues calls, and sends them where no batch is under way. It is false where too many wait.
func (b *batcher) enter(calls ...*pending) bool {
	b.mu.Lock()
	if len(b.waiting) >= b.opts.Limit {
		b.mu.Unlock()
		return false
	}
	b.waiting = append(b.waiting, calls...)
	first := !b.sends
	b.sends = true
	b.mu.Unlock()
	if first {
		b.send(b.next())
		if b.goesOn() {
			go b.sendOn()
		}
	}
	return true
}

// sendOn sends what waits, batch after batch, until nothing does. No caller does that: it would answer late.
func (b *batcher) sendOn() {
	for {
		b.send(b.next())
		if !b.goesOn() {
			return
		}
	}
}

// goesOn ends a batch, and reports whether another one is due.
func (b *batcher) goesOn() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sends = len(b.waiting) > 0
	return b.sends
}

// giveUp takes a call out of the queue whose caller is gone, and returns how it ended.
func (b *batcher) giveUp(ctx context.Context, c *pending) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, c); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
		return notDone("the call was cancelled before it was sent", ctx.Err())
	}
	return unknown("the call was cancelled before Redis answered", ctx.Err())
}

// next takes the calls that go out next from the queue. Those that are too late end here.
func (b *batcher) next() []*pending {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = slices.DeleteFunc(b.waiting, func(c *pending) bool {
		// One that waited for most of its time behind a Redis that hangs would only cut short those it goes with.
		late := c.deadline.Sub(now) < b.opts.Timeout/4
		if late {
			c.end(nil, notDone("Redis does not keep up", nil))
		}
		return late
	})
	n := min(len(b.waiting), maxBatch)
	batch := slices.Clone(b.waiting[:n])
	b.waiting = slices.Delete(b.waiting, 0, n)
	return batch
}
