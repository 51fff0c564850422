package allocator

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// queue is the way of scripts to one node of Redis: a group commit. A call that finds no pipeline under way leads: it sends
// all that waits, itself included, as one plain pipeline. Those that come meanwhile wait, and one of them leads next. The
// more calls there are, the fewer round trips each costs, and a lone caller goes straight through.
//
// What it promises to each call:
//   - One that is given up while it waits is never sent.
//   - It ends within the timeout, however long others take before it.
//   - Where too many wait, it fails at once.
//   - It is sent once. Only a script that Redis did not know, and so did not run, is sent again, after it was loaded.
//   - With copies, it is answered only when that many replicas have all that its answer rests on.
type queue struct {
	node    redis.UniversalClient
	timeout time.Duration
	limit   int // how many calls may wait
	server  string
	copies  int // how many replicas must have what a pipeline changed before it is answered

	mu      sync.Mutex
	waiting []*call // in the order in which they came
	led     bool    // a pipeline is under way, or its leader was appointed

	trail  *trail // of this server's answers, with copies
	marked keys   // of a pool that had its mark in the last pipeline; only who leads looks
}

// maxBatch bounds a pipeline, so that its first call does not wait long for its last.
const maxBatch = 256

// call is one script on its way.
type call struct {
	redis.Cmd
	script   *lua.Script
	pool     keys
	asking   bool // the node is to run it although the pool is still on its way there
	deadline time.Time
	err      error       // how it ended
	wake     chan wakeUp // at most one lead and one done, in this order; calls of doAll share theirs
	leads    bool        // it was told to lead; guarded by queue.mu
}

// wakeUp is what a waiting call is told.
type wakeUp int

const (
	done wakeUp = iota // it ended
	lead               // it is its turn to send what waits
)

// NoRetry is asked by go-redis, which else would send a command again by itself.
func (*call) NoRetry() bool { return true }

// newCall returns a call of a script.
func newCall(ctx context.Context, pool keys, script *lua.Script, keys []string, args []any, deadline time.Time) *call {
	return &call{
		Cmd:      *redis.NewCmd(ctx, evalSHA(script, keys, args)...),
		script:   script,
		pool:     pool,
		deadline: deadline,
		wake:     make(chan wakeUp, 2),
	}
}

// do runs a call, once, and returns its answer. Errors are of type *Error, but for those that no caller can be told
// anything about; a change that Redis may have made without an answer is ErrOutcomeUnknown.
func (q *queue) do(ctx context.Context, c *call) (any, error) {
	if !q.enter(c) {
		return nil, tooMany()
	}
	for {
		select {
		case word := <-c.wake:
			if word == done {
				return c.Val(), c.err
			}
			q.send(q.take(c))
			q.handOver()
		case <-ctx.Done():
			if q.leave(c) {
				return nil, unavailable("the call was given up before it was sent", ctx.Err())
			}
			return nil, unknown("the call was given up before Redis answered", ctx.Err())
		}
	}
}

// doAll runs calls of one deadline, each once, and returns how each ended. They enter together and wait together: whichever
// of them is told to lead, this leads. Where they are given up, nothing is known of those that were sent.
func (q *queue) doAll(ctx context.Context, calls []*call) []result {
	results := make([]result, len(calls))
	wake := make(chan wakeUp, 2*len(calls))
	for _, c := range calls {
		c.wake = wake
	}
	if !q.enter(calls...) {
		for i := range results {
			results[i].err = tooMany()
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
			q.send(q.take(calls[0]))
			q.handOver()
		case <-ctx.Done():
			for i, c := range calls {
				if q.leave(c) {
					results[i].err = unavailable("the call was given up before it was sent", ctx.Err())
				} else {
					results[i].err = unknown("the call was given up before Redis answered", ctx.Err())
				}
			}
			return results
		}
	}
	for i, c := range calls {
		results[i] = result{c.Val(), c.err}
	}
	return results
}

func tooMany() *Error { return unavailable("too many calls wait for Redis", nil) }

// evalSHA returns the command that runs a script. Keys go in by pointers, which need no copy to become an any.
func evalSHA(script *lua.Script, keys []string, args []any) []any {
	command := make([]any, 0, 3+len(keys)+len(args))
	command = append(command, "evalsha", script.Hash, len(keys))
	for i := range keys {
		command = append(command, &keys[i])
	}
	return append(command, args...)
}

// enter queues calls, of which the first leads where nobody does. It is false where too many wait.
func (q *queue) enter(calls ...*call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= q.limit {
		return false
	}
	q.waiting = append(q.waiting, calls...)
	if !q.led {
		q.appoint()
	}
	return true
}

// leave takes a call that is given up out of the queue. It is false where the call was taken from there already.
func (q *queue) leave(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, waits := range q.waiting {
		if waits == c {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			if c.leads {
				q.appoint()
			}
			return true
		}
	}
	return false
}

// take empties the queue of the calls that go out next, led by one of them. It takes none where that one is too late: its
// caller knows its answer, and must not wait for those of others.
func (q *queue) take(leader *call) []*call {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	led := true
	q.waiting = slices.DeleteFunc(q.waiting, func(c *call) bool {
		// One that waited for most of its time behind a Redis that hangs would only cut short those it goes with.
		late := c.deadline.Sub(now) < q.timeout/4
		if late {
			c.end(unavailable("Redis does not keep up", nil))
			led = led && c.wake != leader.wake
		}
		return late
	})
	if !led {
		return nil
	}
	n := min(len(q.waiting), maxBatch)
	batch := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	return batch
}

// handOver ends the turn of a leader.
func (q *queue) handOver() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.appoint()
}

// appoint makes the call that has waited longest the leader; q.mu is held.
func (q *queue) appoint() {
	q.led = len(q.waiting) > 0
	if q.led {
		next := q.waiting[0]
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
func (q *queue) send(batch []*call) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithDeadline(context.Background(), batch[0].deadline)
	defer cancel()
	uncopied := q.exec(ctx, nil, batch)
	var again []*call // after a start or a failover Redis has to be told each script, once
	for _, c := range batch {
		switch {
		case !redis.HasErrorPrefix(c.Err(), "NOSCRIPT"):
			c.end(conclude(c.Err(), uncopied))
		case errors.Is(uncopied, errMissing): // it would change a state that is lost
			c.end(unavailable(stateLost, uncopied))
		default:
			again = append(again, c)
		}
	}
	if len(again) > 0 {
		uncopied = q.exec(ctx, scriptsOf(again), again)
		for _, c := range again {
			c.end(conclude(c.Err(), uncopied))
		}
	}
}

// conclude says how a call ended. What a script answered, be it an error, is no answer yet where too few replicas have what
// it rests on; uncopied says why.
func conclude(err, uncopied error) error {
	err = classify(err)
	if uncopied != nil && (err == nil || wasRefused(err)) {
		return unknown("too few replicas have it", uncopied)
	}
	return err
}

// wasRefused reports whether a call ended with an error that its script answered.
func wasRefused(err error) bool {
	failed, ok := errors.AsType[*Error](err)
	return ok && failed.Code != CodeUnavailable && failed.Code != CodeOutcomeUnknown
}

func scriptsOf(calls []*call) map[string]*lua.Script {
	scripts := map[string]*lua.Script{}
	for _, c := range calls {
		scripts[c.script.Hash] = c.script
	}
	return scripts
}

// exec loads scripts and runs the commands of a batch, in one round trip. Each holds its own answer or error afterwards;
// uncopied says why those that succeeded cannot be answered yet: too few replicas have what they rest on.
func (q *queue) exec(ctx context.Context, load map[string]*lua.Script, batch []*call) (uncopied error) {
	pipeline := q.node.Pipeline()
	for _, script := range load {
		pipeline.ScriptLoad(ctx, script.Source)
	}
	for _, c := range batch {
		c.SetErr(nil)
		if c.asking {
			pipeline.Do(ctx, "asking")
		}
		_ = pipeline.Process(ctx, c)
	}
	if q.copies > 0 {
		return q.execCopied(ctx, pipeline, batch)
	}
	_, _ = pipeline.Exec(ctx)
	return nil
}
