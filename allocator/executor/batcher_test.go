package executor

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// add is a script that adds a member to a SET, and count one that counts them.
var (
	add   = script("return redis.call('sadd', KEYS[1], ARGV[1])")
	count = script("return redis.call('scard', KEYS[1])")
)

func script(source string) *lua.Script {
	hash := sha1.Sum([]byte(source))
	return &lua.Script{Source: source, Hash: hex.EncodeToString(hash[:])}
}

// batcherTest is an Executor on a Redis of the test's own.
type batcherTest struct {
	*Executor
	admin *redis.Client // may do everything there
	key   string
}

func newBatcherTest(t *testing.T, timeout time.Duration, limit int) batcherTest {
	store, _, _ := storetest.Private(t)
	b := batcherTest{New(store.Client, Options{Timeout: timeout, Limit: limit}), store.Admin, store.Prefix + ":{default}:names:test"}
	if err := b.add(t.Context(), "first"); err != nil { // Redis knows the script from here on
		t.Fatal(err)
	}
	return b
}

// hang makes that Redis hang for a while.
func (b batcherTest) hang(d time.Duration) {
	hung := make(chan struct{})
	go func() {
		close(hung)
		b.admin.Do(context.Background(), "DEBUG", "SLEEP", d.Seconds())
	}()
	<-hung
	time.Sleep(50 * time.Millisecond) // the command is on its way
}

func (b batcherTest) add(ctx context.Context, name string) error {
	_, err := b.Write(ctx, Call{Script: add, Keys: []string{b.key}, Args: []any{name}})
	return err
}

// addLater adds in the background and returns how that ended.
func (b batcherTest) addLater(ctx context.Context, name string) chan error {
	ended := make(chan error, 1)
	go func() { ended <- b.add(ctx, name) }()
	time.Sleep(20 * time.Millisecond) // it is under way, or waits, when the next one comes
	return ended
}

func (b batcherTest) count(ctx context.Context) (int64, error) {
	answer, err := b.Read(ctx, Call{Script: count, Keys: []string{b.key}})
	n, _ := answer.(int64)
	return n, err
}

func TestBatcherNeverSendsACallThatWasGivenUp(t *testing.T) {
	b := newBatcherTest(t, 5*time.Second, 100)
	b.hang(500 * time.Millisecond)
	sent := b.addLater(t.Context(), "sent")
	ctx, giveUp := context.WithCancel(t.Context())
	waits := b.addLater(ctx, "waits")
	stays := b.addLater(t.Context(), "stays")
	giveUp()
	if err := <-waits; !hasOutcome(err, NotDone) {
		t.Errorf("given up while it waited: %v", err)
	}
	for name, ended := range map[string]chan error{"sent": sent, "stays": stays} {
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := b.count(t.Context()); err != nil || n != 3 {
		t.Errorf("%d members, %v: not first, sent and stays", n, err)
	}
}

func TestBatcherRefusesWhatTooManyWaitBefore(t *testing.T) {
	b := newBatcherTest(t, 5*time.Second, 2)
	b.hang(500 * time.Millisecond)
	ended := []chan error{b.addLater(t.Context(), "a"), b.addLater(t.Context(), "b"), b.addLater(t.Context(), "c")}
	start := time.Now()
	if err := b.add(t.Context(), "d"); !hasOutcome(err, NotDone) {
		t.Errorf("with two that wait: %v", err)
	}
	if took := time.Since(start); took > 200*time.Millisecond {
		t.Errorf("it was refused after %s, not at once", took)
	}
	for i, c := range ended {
		if err := <-c; err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestBatcherEndsEveryCallWithinItsTimeout(t *testing.T) {
	const timeout = 400 * time.Millisecond
	b := newBatcherTest(t, timeout, 100)
	b.hang(3 * time.Second)
	var running sync.WaitGroup
	for i := range 10 {
		time.Sleep(timeout / 5)
		running.Go(func() {
			start := time.Now()
			err := b.add(t.Context(), fmt.Sprint("holder-", i))
			if took := time.Since(start); took > timeout+timeout/2 {
				t.Errorf("call %d ended after %s", i, took)
			}
			if !hasOutcome(err, Unknown) && !hasOutcome(err, NotDone) {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	running.Wait()
}

// The second call is too late when the first has ended; the third is not.
func TestBatcherSendsNoLateCall(t *testing.T) {
	const timeout = 800 * time.Millisecond
	b := newBatcherTest(t, timeout, 100)
	b.hang(4 * time.Second)
	first := b.addLater(t.Context(), "first-of-three")
	start := time.Now()
	late := b.addLater(t.Context(), "late")
	time.Sleep(timeout - 100*time.Millisecond)
	third := b.addLater(t.Context(), "third")
	if err := <-late; !hasOutcome(err, NotDone) || time.Since(start) > timeout+timeout/2 {
		t.Errorf("the late one ended after %s with %v", time.Since(start), err)
	}
	for name, ended := range map[string]chan error{"first": first, "third": third} {
		if err := <-ended; !hasOutcome(err, Unknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBatcherLoadsAnUnknownScriptOnceForAll(t *testing.T) {
	b := newBatcherTest(t, 5*time.Second, 1000)
	ctx := t.Context()
	b.admin.ScriptFlush(ctx)
	b.admin.ConfigResetStat(ctx)
	b.hang(300 * time.Millisecond)
	var running sync.WaitGroup
	running.Go(func() { b.count(ctx) }) // it goes alone, and the others wait behind it
	time.Sleep(50 * time.Millisecond)
	for i := range 100 {
		running.Go(func() {
			if err := b.add(ctx, fmt.Sprint("holder-", i)); err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	running.Wait()
	stats := b.admin.Info(ctx, "commandstats").Val()
	if !strings.Contains(stats, "cmdstat_script|load:calls=2,") {
		t.Errorf("the two scripts were not loaded once each:\n%s", stats)
	}
}

func TestBatcherStaysOpenWhenCallsAreGivenUp(t *testing.T) {
	b := newBatcherTest(t, 5*time.Second, 1000)
	var running sync.WaitGroup
	for client := range 20 {
		running.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*client%40)*10*time.Microsecond)
				_ = b.add(ctx, fmt.Sprintf("holder-%d-%d", client, i))
				cancel()
			}
		})
	}
	running.Wait()
	if err := b.add(t.Context(), "last"); err != nil {
		t.Errorf("after all that: %v", err)
	}
	q := b.batcher(batcherKey{node: b.client})
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 || q.sends {
		t.Errorf("%d calls wait, sends: %v", len(q.waiting), q.sends)
	}
}

// A Redis that hangs costs many calls one timeout.
func TestManyCallsOnARedisThatHangs(t *testing.T) {
	b := newBatcherTest(t, 400*time.Millisecond, 100)
	calls := slices.Repeat([]Call{{Script: count, Keys: []string{b.key}}}, 1_000)
	const perBatch = 64
	for i, r := range b.RunAll(t.Context(), calls, perBatch) {
		if r.Err != nil || r.Answer != int64(1) {
			t.Fatalf("%d: %v, %v", i, r.Answer, r.Err)
		}
	}
	b.hang(2 * time.Second)
	began := time.Now()
	for i, r := range b.RunAll(t.Context(), calls, perBatch) {
		if !isSilent(r.Err) {
			t.Fatalf("%d: %v, %v", i, r.Answer, r.Err)
		}
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	ctx, giveUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer giveUp()
	if err := b.RunAll(ctx, calls, perBatch)[999].Err; !hasOutcome(err, NotDone) {
		t.Errorf("given up: %v", err)
	}
}

// Calls whose context has less time than a quarter of a long timeout, as those of a scrape, are sent.
func TestCallsOfLittleTime(t *testing.T) {
	b := newBatcherTest(t, 20*time.Second, 1000)
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
	defer stop()
	call := Call{Slot: b.key, Script: count, Keys: []string{b.key}}
	if results := b.RunAll(ctx, []Call{call}, 10); results[0].Err != nil {
		t.Error(results[0].Err)
	}
	if _, err := b.Read(ctx, call); err != nil {
		t.Error(err)
	}
}
