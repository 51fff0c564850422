//go:build !faults

package systemtest

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// TestThousandLines lets a call wait in each of 1,000 lines, on three servers. While nothing happens they cost next to nothing.
// Each gets its port when that is given back: at once by a message; soon, where the connections break on which the servers listen;
// and by a heartbeat, where no message arrives at all.
func TestThousandLines(t *testing.T) {
	const count, first = 1000, 20000
	store, _, _ := storetest.Private(t)
	l := &lines{replicas: startReplicasOn(t, store, 3, first-1, 1), first: first}
	l.fill(count)
	l.join()
	l.idle(6 * time.Second)

	messages := l.handOver(0, count/2)
	t.Logf("by messages: p50 %s, p99 %s", percentile(messages, 0.5), percentile(messages, 0.99))

	killed, err := store.Admin.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Result()
	if err != nil || killed != 3 {
		t.Errorf("%d servers listened (%v)", killed, err)
	}
	broken := l.handOver(count/2, count*3/4)
	t.Logf("after the connections broke: p50 %s, p99 %s", percentile(broken, 0.5), percentile(broken, 0.99))

	user := store.Options().Username
	if user == "" {
		user = "default"
	}
	if err := store.Admin.Do(t.Context(), "ACL", "SETUSER", user, "resetchannels").Err(); err != nil {
		t.Fatal(err)
	}
	beats := l.handOver(count*3/4, count)
	t.Logf("by heartbeats: p50 %s, p99 %s", percentile(beats, 0.5), percentile(beats, 0.99))
	if fast, slow := percentile(messages, 0.5), percentile(beats, 0.5); fast > slow/3 {
		t.Errorf("half of the ports take %s, and %s without messages: these are of no use", fast, slow)
	}
	eventually(t, "nobody is in line", func() bool { return l.standing() == 0 })
}

// lines are services of one port each, with a call in line for each.
type lines struct {
	*replicas
	first    int
	holders  []held
	answered []chan time.Time // has when a call that waits got its port
}

// of is the service of a line.
func (l *lines) of(i int) *replicas {
	of := *l.replicas
	of.service, of.first, of.ports = fmt.Sprintf("line-%d", i), l.first+i, 1
	return &of
}

// inParallel does something for each of many, 16 at a time.
func inParallel(from, to int, do func(i int)) {
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			for i := from + worker; i < to; i += 16 {
				do(i)
			}
		})
	}
	all.Wait()
}

// fill makes the services, and lets somebody have their ports.
func (l *lines) fill(count int) {
	l.t.Helper()
	l.holders = make([]held, count)
	inParallel(0, count, func(i int) {
		of := l.of(i)
		of.expect(201, i%3, request{method: "PUT", body: fmt.Sprintf(`{"start":%d,"end":%d}`, of.first, of.first)})
		got, _ := of.expect(201, i%3, claimOf("holder", `"count":1`))
		l.holders[i] = got.held
	})
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// join lets a call wait in each line, and returns when all do.
func (l *lines) join() {
	l.t.Helper()
	for i := range l.holders {
		l.answered = append(l.answered, make(chan time.Time, 1))
		go func() {
			got := l.of(i).send(l.t.Context(), i%3, request{method: "POST", path: "/ports?wait=300s", body: `{"name":"waiter"}`})
			if got.status != 201 {
				l.t.Errorf("%d: %s (%s)", i, got.code, got.detail)
			}
			l.answered[i] <- time.Now()
		}()
	}
	eventually(l.t, "all are in line", func() bool { return l.standing() == len(l.holders) })
}

// standing is in how many lines somebody waits.
func (l *lines) standing() int {
	return int(l.store.Admin.ZCard(context.Background(), l.poolKey("lines")).Val())
}

// handOver gives the ports of some lines back, each on another server than where somebody waits for it, and tells how long it took
// until the answers of these were there.
func (l *lines) handOver(from, to int) (took []time.Duration) {
	l.t.Helper()
	released := make([]time.Time, to)
	for i := from; i < to; i++ {
		released[i] = time.Now()
		l.of(i).release((i+1)%3, l.holders[i])
	}
	late := time.After(patience)
	for i := from; i < to; i++ {
		select {
		case at := <-l.answered[i]:
			took = append(took, at.Sub(released[i]))
		case <-late:
			l.t.Fatalf("line %d is not served", i)
		}
	}
	return took
}

// idle watches what the lines cost Redis while nothing happens.
func (l *lines) idle(watched time.Duration) {
	l.t.Helper()
	scripts, cpu := l.scripts(), l.cpu()
	time.Sleep(watched)
	scripts, cpu = l.scripts()-scripts, l.cpu()-cpu
	share, rate := cpu/watched.Seconds(), float64(scripts)/watched.Seconds()
	l.t.Logf("%d lines that wait: %.0f scripts a second, and %.2f %% of a core of Redis", len(l.holders), rate, 100*share)
	if rate > float64(len(l.holders)) {
		l.t.Errorf("each line is asked for more than once a second")
	}
	if share > 0.1 {
		l.t.Errorf("waiting takes %.2f of a core of Redis", share)
	}
}

// scripts is how many scripts Redis has run.
func (l *lines) scripts() int {
	return int(l.figure("commandstats", `cmdstat_evalsha:calls=(\d+)`))
}

// cpu is how many seconds of a core Redis has taken.
func (l *lines) cpu() float64 {
	return l.figure("cpu", `used_cpu_user:([\d.]+)`) + l.figure("cpu", `used_cpu_sys:([\d.]+)`)
}

func (l *lines) figure(section, pattern string) float64 {
	l.t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(l.store.Admin.Info(l.t.Context(), section).Val())
	if found == nil {
		l.t.Fatalf("Redis does not tell %s", pattern)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(found[1]), 64)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}
