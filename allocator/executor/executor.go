// Package executor is the one way to Redis: it finds the node of a script, sends it in a batch with others, loads it where it is
// unknown, waits for replicas, and says what an error means. It knows nothing of what the scripts are about.
package executor

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// Client is a client of Redis 6.2 or newer. It must not repeat commands by itself, and must heed contexts (MaxRetries: -1,
// ContextTimeoutEnabled: true). Closing it is the caller's.
type Client = redis.UniversalClient

// Options are the settings of an Executor.
type Options struct {
	Timeout  time.Duration // how long one call may take
	Limit    int           // how many calls may wait for a node
	Replicas int           // how many replicas must have a change before Write returns; 0 waits for none

	// With Replicas this server leaves a growing number in each slot. TrailKey names the key of a slot, and Missing is called
	// when a number turns out lower than one that the replicas had: changes that must never be lost are missing.
	TrailKey func(slot string) string
	Missing  func()

	Trace Trace // nil: nobody watches the calls
}

// Call is one script that is to run. Slot has the hash tag of its keys, and so says which node of a Cluster has them.
type Call struct {
	Slot   string
	Script *lua.Script
	Keys   []string
	Args   []any

	// Many runs several such calls that wait at the same time, and answers with the answers of all; nil: each runs by itself. Its keys
	// and arguments are those of Script, of which those of Many.Each and OwnArgs follow for each call. A key and LastArgs that all
	// have in common follow last, if LastArgs is not 0.
	Many     *lua.Script
	OwnArgs  int
	LastArgs int
}

// Result is how one of many calls ended.
type Result struct {
	Answer any
	Err    error
}

// Executor runs scripts and a few commands. Each node has batchers of its own, so that in a Cluster a node that hangs holds up
// no slot but its own. Errors are of type *Error. It is safe for concurrent use.
type Executor struct {
	client   redis.UniversalClient
	opts     Options
	trail    *trail
	batchers sync.Map // batcherKey -> *batcher
}

// batcherKey is what has a batcher of its own. Calls that change nothing wait for no replica, and so not behind those that do;
// and nobody waits for the answers to those of RunAll.
type batcherKey struct {
	node     redis.UniversalClient
	replicas int
	many     bool // of RunAll
}

// New returns an Executor on the Redis behind a client.
func New(client Client, opts Options) *Executor {
	return &Executor{client: client, opts: opts, trail: newTrail(opts.Missing)}
}

// Write runs a script that may change something, once, and returns its answer when the replicas have what it rests on.
func (e *Executor) Write(ctx context.Context, c Call) (any, error) {
	return e.run(ctx, e.opts.Replicas, c)
}

// WriteUnconfirmed is Write that waits for no replica.
func (e *Executor) WriteUnconfirmed(ctx context.Context, c Call) (any, error) {
	return e.run(ctx, 0, c)
}

// Read runs a script that changes nothing: if no answer came, nothing was done.
func (e *Executor) Read(ctx context.Context, c Call) (any, error) {
	answer, err := e.run(ctx, 0, c)
	return answer, nothingDone(err)
}

// Confirm is Write in batches of its own, so that no other call waits with it. It is not for a Cluster.
func (e *Executor) Confirm(ctx context.Context, c Call) (any, error) {
	return e.batcher(batcherKey{e.client, e.opts.Replicas, true}).do(ctx, newPending(c, e.deadline()))
}

func (e *Executor) run(ctx context.Context, replicas int, c Call) (any, error) {
	if e.opts.Trace == nil {
		return e.send(ctx, replicas, c)
	}
	ended := e.opts.Trace(ctx, c.Script.Name)
	answer, err := e.send(ctx, replicas, c)
	ended(failure(err))
	return answer, err
}

func (e *Executor) send(ctx context.Context, replicas int, c Call) (any, error) {
	if cluster, ok := e.client.(*redis.ClusterClient); ok {
		return e.runInCluster(ctx, cluster, replicas, c)
	}
	return e.batcher(batcherKey{node: e.client, replicas: replicas}).do(ctx, newPending(c, e.deadline()))
}

// deadline returns when a call that is made now has to end. That of its context, if it is earlier, ends the call and no others: it
// does not say for how long Redis may take, for a batch or at all.
func (e *Executor) deadline() time.Time { return time.Now().Add(e.opts.Timeout) }

func (e *Executor) batcher(key batcherKey) *batcher {
	if b, ok := e.batchers.Load(key); ok {
		return b.(*batcher)
	}
	b, _ := e.batchers.LoadOrStore(key, &batcher{node: key.node, opts: e.opts, replicas: key.replicas, trail: e.trail})
	return b.(*batcher)
}
