package allocator

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

// mark is a number that is to be left.
type mark struct {
	key           string
	number, least int64 // least is what must stand there by then
	losses        int
}

func newTrail(missing func()) *trail { return &trail{missing: missing, of: map[string]step{}} }

func (t *trail) next(key string) mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	m := mark{key: key, number: t.number, losses: t.losses}
	if last := t.of[key]; time.Since(last.at) < copiedKnown {
		m.least = last.number
	}
	return m
}

// follows reports whether a mark was left in a state that had all that went before it. Of those that are under way when one is missed
// none was, since the first to come hides what is missing from the others.
func (t *trail) follows(m mark, found string) bool {
	t.mu.Lock()
	was, _ := strconv.ParseInt(found, 10, 64)
	isMissed := was < m.least && m.losses == t.losses
	if isMissed {
		t.losses++
		clear(t.of)
	}
	follows := m.losses == t.losses
	t.mu.Unlock()
	if isMissed {
		t.missing()
	}
	return follows
}

// leave remembers what the replicas have.
func (t *trail) leave(m mark) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.losses != t.losses || m.number <= t.of[m.key].number {
		return
	}
	for key, last := range t.of {
		if time.Since(last.at) > copiedKnown {
			delete(t.of, key)
		}
	}
	t.of[m.key] = step{m.number, time.Now()}
}

// forget forgets all, since the state is known to be another one.
func (t *trail) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.losses++
	clear(t.of)
}

const (
	copiedLasts = 24 * time.Hour // how long the key lasts by which replicas are waited for, after its last use
	copiedKnown = time.Hour      // how long it is missed if it is not there; less, since Redis' clock may step ahead
)

var errMissing = errors.New("changes are missing that the replicas had")

// execCopied runs a pipeline and waits until enough replicas have all that was changed up to its end, by whomever: an
// answer may rest on what another call has changed shortly before. WAIT promises to count from the last change of its own
// connection, so the pipeline ends with one: the next number of the trail. If a Cluster refuses it, since that pool is on its way to
// another node, a pool that is not will do.
func (q *queue) execCopied(ctx context.Context, pipeline redis.Pipeliner, batch []*call) error {
	pools := []keys{q.marked, batch[len(batch)-1].pool}
	for _, c := range batch {
		pools = append(pools, c.pool)
	}
	refused := map[keys]bool{"": true} // "" while none had its mark
	for _, pool := range pools {
		if refused[pool] {
			continue
		}
		next := q.trail.next(pool.copied(q.server))
		write := evalSHA(lua.Copied, []string{next.key}, []any{next.number, copiedLasts.Milliseconds()})
		left, wait := pipeline.Do(ctx, write...), q.wait(ctx, pipeline)
		_, _ = pipeline.Exec(ctx)
		if redis.HasErrorPrefix(left.Err(), "NOSCRIPT") {
			pipeline = q.node.Pipeline()
			pipeline.ScriptLoad(ctx, lua.Copied.Source)
			left, wait = pipeline.Do(ctx, write...), q.wait(ctx, pipeline)
			_, _ = pipeline.Exec(ctx)
		}
		pipeline = q.node.Pipeline()
		found, err := left.Text()
		switch {
		case err == nil:
			q.marked = pool
			if !q.trail.follows(next, found) {
				return errMissing
			}
			if err := q.enough(wait.Int()); err != nil {
				return err
			}
			q.trail.leave(next)
			return nil
		case !isReply(err):
			return err
		}
		refused[pool] = true
	}
	return errors.New("no pool of the node stays there")
}

// wait ends a pipeline with the wait for replicas, which leaves some of the time that is left.
func (q *queue) wait(ctx context.Context, pipeline redis.Pipeliner) *redis.Cmd {
	deadline, _ := ctx.Deadline()
	return pipeline.Do(ctx, "wait", q.copies, max(1, (time.Until(deadline)*3/4).Milliseconds())) // 0 would wait for ever
}

// enough says whether as many replicas have a change as must.
func (q *queue) enough(have int, err error) error {
	if err == nil && have < q.copies {
		return fmt.Errorf("%d of %d replicas have it", have, q.copies)
	}
	return err
}
