package executor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// trail is what this server leaves in Redis with each batch of answers for which it waited for replicas: a number that grows. Nothing
// of this may ever be lost, so a number that is lower than the last one that was answered tells of a state that is older.
type trail struct {
	missing func() // what to do then

	mu     sync.Mutex
	number int64
	losses int             // how often a number was too low
	of     map[string]step // the last number that the replicas had, by key
}

type step struct {
	number int64
	at     time.Time // when it was written
}

// footprint is a number that is to be left.
type footprint struct {
	key           string
	number, least int64 // least is what must stand there by then
	losses        int
}

func newTrail(missing func()) *trail { return &trail{missing: missing, of: map[string]step{}} }

func (t *trail) next(key string) footprint {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	f := footprint{key: key, number: t.number, losses: t.losses}
	if last := t.of[key]; time.Since(last.at) < trailKnown {
		f.least = last.number
	}
	return f
}

// follows reports whether a number was left in a state that had all that went before it. Of those that are under way when one is missed
// none was, since the first to come hides what is missing from the others.
func (t *trail) follows(f footprint, found string) bool {
	t.mu.Lock()
	was, _ := strconv.ParseInt(found, 10, 64)
	isMissed := was < f.least && f.losses == t.losses
	if isMissed {
		t.losses++
		clear(t.of)
	}
	follows := f.losses == t.losses
	t.mu.Unlock()
	if isMissed {
		t.missing()
	}
	return follows
}

// leave remembers what the replicas have.
func (t *trail) leave(f footprint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.losses != t.losses || f.number <= t.of[f.key].number {
		return
	}
	for key, last := range t.of {
		if time.Since(last.at) > trailKnown {
			delete(t.of, key)
		}
	}
	t.of[f.key] = step{f.number, time.Now()}
}

// ForgetTrail forgets what the replicas had, since the state is known to be another one.
func (e *Executor) ForgetTrail() {
	t := e.trail
	t.mu.Lock()
	defer t.mu.Unlock()
	t.losses++
	clear(t.of)
}

const (
	trailLasts = 24 * time.Hour // how long the key lasts by which replicas are waited for, after its last use
	trailKnown = time.Hour      // how long it is missed if it is not there; less, since Redis' clock may step ahead
)

// execReplicated runs a pipeline and waits until enough replicas have all that was changed up to its end, by whomever: an
// answer may rest on what another call has changed shortly before. WAIT promises to count from the last change of its own
// connection, so the pipeline ends with one: the next number of the trail. If a Cluster refuses it, since that slot is on its way to
// another node, one that is not will do.
func (b *batcher) execReplicated(ctx context.Context, pipeline redis.Pipeliner, batch []*pending) error {
	slots := []string{b.confirmed, batch[len(batch)-1].call.Slot}
	for _, c := range batch {
		slots = append(slots, c.call.Slot)
	}
	refused := map[string]bool{"": true} // "" while none had its number
	for _, slot := range slots {
		if refused[slot] {
			continue
		}
		next := b.trail.next(b.opts.TrailKey(slot))
		write := evalSHA(lua.ExtendTrail, []string{next.key}, []any{next.number, trailLasts.Milliseconds()})
		left, wait := pipeline.Do(ctx, write...), b.wait(ctx, pipeline)
		_, _ = pipeline.Exec(ctx)
		if redis.HasErrorPrefix(left.Err(), "NOSCRIPT") {
			pipeline = b.node.Pipeline()
			pipeline.ScriptLoad(ctx, lua.ExtendTrail.Source)
			left, wait = pipeline.Do(ctx, write...), b.wait(ctx, pipeline)
			_, _ = pipeline.Exec(ctx)
		}
		pipeline = b.node.Pipeline()
		found, err := left.Text()
		switch {
		case err == nil:
			b.confirmed = slot
			if !b.trail.follows(next, found) {
				return ErrMissing
			}
			if err := b.enough(wait.Int()); err != nil {
				return err
			}
			b.trail.leave(next)
			return nil
		case !isReply(err):
			return err
		}
		refused[slot] = true
	}
	return errors.New("no pool of the node stays there")
}

// wait ends a pipeline with the wait for replicas, which leaves some of the time that is left.
func (b *batcher) wait(ctx context.Context, pipeline redis.Pipeliner) *redis.Cmd {
	deadline, _ := ctx.Deadline()
	return pipeline.Do(ctx, "wait", b.replicas, max(1, (time.Until(deadline)*3/4).Milliseconds())) // 0 would wait for ever
}

// enough says whether as many replicas have a change as must.
func (b *batcher) enough(have int, err error) error {
	if err == nil && have < b.replicas {
		return fmt.Errorf("%d of %d replicas have it", have, b.replicas)
	}
	return err
}
