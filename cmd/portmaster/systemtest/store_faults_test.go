//go:build faults

package systemtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestScriptFlush takes its scripts from Redis ten times a second. Nobody who calls may notice.
func TestScriptFlush(t *testing.T) {
	const flushes = 40
	s := newScenario(t)
	s.startReplicas(s.node.addr)
	s.startLoad(urls(s.replicas), 16, 5*time.Millisecond)
	for range flushes {
		if err := s.node.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	figures := s.end(rules{})
	if figures.unavailable+figures.unknown > 0 {
		t.Errorf("%d calls were unavailable, and of %d the outcome was unknown", figures.unavailable, figures.unknown)
	}
	if n := s.node.refusals("NOSCRIPT"); n < flushes {
		t.Errorf("Redis was asked for a script that it did not know %d times", n)
	}
}

// outage is a time in which Redis does not do all of its work.
type outage struct {
	begin func(t *testing.T, node *redisNode)
	keep  func(t *testing.T, node *redisNode) // called all the while; may be nil
	end   func(t *testing.T, node *redisNode)
	lasts time.Duration

	answers []string // errors that calls get which begin in it
	works   bool     // not all of them do: some write nothing, or little enough
	ready   bool     // /readyz succeeds all the while
}

// TestRedisOutages lets Redis be there and refuse its work, or be away, under load. Who calls is told so within a second,
// and may rely on what he is told; nothing is half-written; and when it is over everything works again by itself.
func TestRedisOutages(t *testing.T) {
	t.Run("busy for 2 s", busy(2*time.Second).run)
	t.Run("out of memory", outOfMemory(4*time.Second).run)
	t.Run("read-only", readOnly(2*time.Second).run)
	t.Run("away for 5 s, paused", paused(5*time.Second).run)
	t.Run("away for 5 s, killed", killed(5*time.Second).run)
}

const (
	// Every call is to be answered within a second, of which the servers wait 800 ms for Redis. It is measured by who calls,
	// from before the request to after the answer, on a machine that also runs everything else: nine of ten calls that fail
	// must keep to it, and none may take half as long again.
	soon   = time.Second
	latest = soon + soon/2

	// After an outage, calls that begin later than this must not fail.
	recovery = 1500 * time.Millisecond
)

func (o outage) run(t *testing.T) {
	s := newScenario(t, "--busy-reply-threshold", "100")
	s.startReplicas(s.node.addr)
	s.startLoad(urls(s.replicas), 16, 5*time.Millisecond)

	began := time.Now()
	o.begin(t, s.node)
	there := time.Now()
	o.last(t, s)
	ending := time.Now()
	o.end(t, s.node)
	over := time.Now()
	for _, r := range s.replicas {
		r.awaitReady()
	}
	back := time.Since(over)
	time.Sleep(time.Until(over.Add(recovery)))
	s.ledger.awaitWrites(t, 200)
	s.end(rules{})

	var within, met []call // calls that began and ended in the outage, and all that it touched
	for _, c := range s.ledger.all() {
		if c.start.After(there) && c.end.Before(ending) {
			within = append(within, c)
		}
		if c.start.Before(over) && c.end.After(began) {
			met = append(met, c)
		}
	}
	o.checkAnswers(t, within)
	checkTimes(t, met)
	checkRecovery(t, s.ledger.all(), over, back)
}

// last lets the outage last its time, and looks at /readyz. In it all clients soon wait, and call again, at the same moments;
// more calls come at others, whatever became of those before.
func (o outage) last(t *testing.T, s *scenario) {
	t.Helper()
	until := time.Now().Add(o.lasts)
	if !o.ready {
		for _, r := range s.replicas {
			eventually(t, r.command.name+" is not ready", func() bool { return !r.ready() })
		}
	}
	for n := 0; time.Now().Before(until); n++ {
		s.callOnce(n)
		if o.keep != nil {
			o.keep(t, s.node)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, r := range s.replicas {
		if o.ready && !r.ready() {
			t.Errorf("%s is not ready", r.command.name)
		}
	}
}

// checkAnswers looks at the calls that began and ended while the outage was there.
func (o outage) checkAnswers(t *testing.T, calls []call) {
	t.Helper()
	const done = "done"
	answers := map[string]int{}
	for _, c := range calls {
		if c.acknowledged() || c.refused() {
			answers[done]++
		} else {
			answers[fmt.Sprintf("%d %s", c.status, c.code)]++
		}
	}
	t.Logf("in the outage: %v", answers)
	for answer, n := range answers {
		if !slices.Contains(o.answers, answer) && !(answer == done && o.works) {
			t.Errorf("in the outage: %s, %d times, want %q", answer, n, o.answers)
		}
	}
	for _, answer := range o.answers {
		if answers[answer] == 0 {
			t.Errorf("in the outage nobody was answered %s", answer)
		}
	}
}

// checkTimes looks at the calls that met the outage.
func checkTimes(t *testing.T, calls []call) {
	t.Helper()
	var times []time.Duration // of those that failed
	for _, c := range calls {
		if c.undone() || c.unknown() {
			times = append(times, c.end.Sub(c.start))
		}
	}
	if len(times) < 20 {
		t.Fatalf("only %d calls failed", len(times))
	}
	slices.Sort(times)
	median, most, longest := times[len(times)/2], times[len(times)*9/10], times[len(times)-1]
	t.Logf("%d calls failed: half of them within %s, 90 %% within %s, all within %s", len(times), round(median), round(most), round(longest))
	if most > soon || longest > latest {
		t.Errorf("90 %% of the calls that failed are to be answered within %s, and all within %s", soon, latest)
	}
}

// checkRecovery looks at all calls. The servers said that they were ready again some time after the outage was over.
func checkRecovery(t *testing.T, calls []call, over time.Time, back time.Duration) {
	t.Helper()
	last := over // when a call began that failed
	for _, c := range calls {
		if (c.undone() || c.unknown()) && c.start.After(last) {
			last = c.start
		}
	}
	t.Logf("after the outage: ready in %s, the last call that failed began after %s", round(back), round(last.Sub(over)))
	if last.Sub(over) > recovery || back > recovery {
		t.Errorf("it took more than %s to recover", recovery)
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// busy is an outage in which a script of somebody else runs and runs.
func busy(lasts time.Duration) outage {
	return outage{
		begin: func(t *testing.T, node *redisNode) {
			client := redis.NewClient(&redis.Options{Addr: node.addr, MaxRetries: -1, ReadTimeout: patience})
			t.Cleanup(func() { client.Close() })
			go client.Eval(context.Background(), "while true do end", nil) // until it is killed
			eventually(t, "Redis is busy", func() bool {
				return redis.HasErrorPrefix(node.client.Ping(t.Context()).Err(), "BUSY")
			})
		},
		end: func(t *testing.T, node *redisNode) {
			if err := node.client.ScriptKill(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			node.awaitAnswer()
		},
		lasts:   lasts,
		answers: []string{"503 UNAVAILABLE"},
	}
}

// outOfMemory is an outage in which Redis may use a little more than it does, again and again, so that many calls meet the
// limit. In the end memory is freed.
func outOfMemory(lasts time.Duration) outage {
	const ballast = "ballast"
	limit := func(t *testing.T, node *redisNode) {
		t.Helper()
		var used int
		for line := range strings.Lines(node.client.Info(t.Context(), "memory").Val()) {
			_, _ = fmt.Sscanf(line, "used_memory:%d", &used)
		}
		if err := node.client.ConfigSet(t.Context(), "maxmemory", fmt.Sprint(used+16<<10)).Err(); used == 0 || err != nil {
			t.Fatalf("used_memory is %d, and CONFIG SET maxmemory says: %v", used, err)
		}
	}
	return outage{
		begin: func(t *testing.T, node *redisNode) {
			if err := node.client.SetRange(t.Context(), ballast, 16<<20, "end").Err(); err != nil {
				t.Fatal(err)
			}
			limit(t, node)
		},
		keep: limit,
		end: func(t *testing.T, node *redisNode) {
			if err := node.client.Del(t.Context(), ballast).Err(); err != nil {
				t.Fatal(err)
			}
		},
		lasts:   lasts,
		answers: []string{"503 UNAVAILABLE"},
		works:   true,
		ready:   true, // since what is released frees memory
	}
}

// readOnly is an outage in which Redis follows another node, one that is not there.
func readOnly(lasts time.Duration) outage {
	return outage{
		begin: func(t *testing.T, node *redisNode) {
			host, port, _ := strings.Cut(freeAddr(t), ":")
			if err := node.client.ReplicaOf(t.Context(), host, port).Err(); err != nil {
				t.Fatal(err)
			}
		},
		end: func(t *testing.T, node *redisNode) {
			if err := node.client.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
				t.Fatal(err)
			}
		},
		lasts:   lasts,
		answers: []string{"503 UNAVAILABLE"},
		works:   true,
	}
}

// paused is an outage in which Redis takes calls and does not answer. It runs those that it took when it is over.
func paused(lasts time.Duration) outage {
	return outage{
		begin:   func(_ *testing.T, node *redisNode) { node.pause() },
		end:     func(_ *testing.T, node *redisNode) { node.resume() },
		lasts:   lasts,
		answers: []string{"503 UNAVAILABLE", "504 OUTCOME_UNKNOWN"},
	}
}

// killed is an outage in which there is no Redis.
func killed(lasts time.Duration) outage {
	return outage{
		begin:   func(_ *testing.T, node *redisNode) { node.kill() },
		end:     func(_ *testing.T, node *redisNode) { node.restart() },
		lasts:   lasts,
		answers: []string{"503 UNAVAILABLE"},
	}
}
