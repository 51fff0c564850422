package allocator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// Mutants of queue.go that these tests were seen to catch: no limit on the queue; no deadline and late calls sent; a given-up
// call that stays in the queue; a leader that is given up and appoints nobody, or that is late and sends those of others;
// nobody hands over; each call loads its script; no script is loaded. That NoRetry is false is caught by TestCallIsSentOnce.

// newQueueTest returns an allocator on a Redis of the test's own, who may do everything there, and a function that makes
// that Redis hang for a while.
func newQueueTest(t *testing.T, timeout time.Duration, queue int) (a *Allocator, admin *redis.Client, hang func(time.Duration)) {
	store, _, _ := storetest.Private(t)
	a = New(store.Client, Options{KeyPrefix: "portmaster", OfferTTL: time.Hour, PortMin: 1024, PortMax: 49151, Timeout: timeout, Queue: queue})
	if _, err := a.Create(t.Context(), DefaultPool, Definition{Name: "django", Start: 5000, End: 10000}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Offer(t.Context(), DefaultPool, "django", Want{Name: "first"}, 0); err != nil { // Redis knows the script from here on
		t.Fatal(err)
	}
	return a, store.Admin, func(d time.Duration) {
		hung := make(chan struct{})
		go func() {
			close(hung)
			store.Admin.Do(context.Background(), "DEBUG", "SLEEP", d.Seconds())
		}()
		<-hung
		time.Sleep(50 * time.Millisecond) // the command is on its way
	}
}

// offer asks for a port in the background and returns how that ended.
func (a *Allocator) offerLater(ctx context.Context, name string) chan error {
	ended := make(chan error, 1)
	go func() {
		_, _, err := a.Offer(ctx, DefaultPool, "django", Want{Name: name}, 0)
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond) // it is under way, or waits, when the next one comes
	return ended
}

func TestQueueNeverSendsACallThatWasGivenUp(t *testing.T) {
	a, _, hang := newQueueTest(t, 5*time.Second, 100)
	hang(500 * time.Millisecond)
	sent := a.offerLater(t.Context(), "sent")
	ctx, giveUp := context.WithCancel(t.Context())
	waits := a.offerLater(ctx, "waits")
	stays := a.offerLater(t.Context(), "stays")
	giveUp()
	if err := <-waits; !errors.Is(err, ErrUnavailable) {
		t.Errorf("given up while it waited: %v", err)
	}
	for name, ended := range map[string]chan error{"sent": sent, "stays": stays} {
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	offers, _, err := a.Offers(t.Context(), DefaultPool, "django", "", MaxPage)
	if err != nil || len(offers) != 3 {
		t.Errorf("offers %+v, %v: not those of first, sent and stays", offers, err)
	}
}

func TestQueueRefusesWhatTooManyWaitBefore(t *testing.T) {
	a, _, hang := newQueueTest(t, 5*time.Second, 2)
	hang(500 * time.Millisecond)
	ended := []chan error{a.offerLater(t.Context(), "a"), a.offerLater(t.Context(), "b"), a.offerLater(t.Context(), "c")}
	start := time.Now()
	if _, _, err := a.Offer(t.Context(), DefaultPool, "django", Want{Name: "d"}, 0); !errors.Is(err, ErrUnavailable) {
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

func TestQueueEndsEveryCallWithinItsTimeout(t *testing.T) {
	const timeout = 400 * time.Millisecond
	a, _, hang := newQueueTest(t, timeout, 100)
	hang(3 * time.Second)
	var running sync.WaitGroup
	for i := range 10 {
		time.Sleep(timeout / 5)
		running.Go(func() {
			start := time.Now()
			_, _, err := a.Offer(t.Context(), DefaultPool, "django", Want{Name: fmt.Sprint("holder-", i)}, 0)
			if took := time.Since(start); took > timeout+timeout/2 {
				t.Errorf("call %d ended after %s", i, took)
			}
			if !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrUnavailable) {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	running.Wait()
}

// The second call is to lead when the first has ended, and is too late by then; the third is not.
func TestQueueLetsALateLeaderGo(t *testing.T) {
	const timeout = 800 * time.Millisecond
	a, _, hang := newQueueTest(t, timeout, 100)
	hang(4 * time.Second)
	first := a.offerLater(t.Context(), "first-of-three")
	start := time.Now()
	late := a.offerLater(t.Context(), "late")
	time.Sleep(timeout - 100*time.Millisecond)
	third := a.offerLater(t.Context(), "third")
	if err := <-late; !errors.Is(err, ErrUnavailable) || time.Since(start) > timeout+timeout/2 {
		t.Errorf("the late one ended after %s with %v", time.Since(start), err)
	}
	for name, ended := range map[string]chan error{"first": first, "third": third} {
		if err := <-ended; !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQueueLoadsAnUnknownScriptOnceForAll(t *testing.T) {
	a, admin, hang := newQueueTest(t, 5*time.Second, 1000)
	ctx := t.Context()
	admin.ScriptFlush(ctx)
	admin.ConfigResetStat(ctx)
	hang(300 * time.Millisecond)
	var running sync.WaitGroup
	running.Go(func() { a.Service(ctx, DefaultPool, "django") }) // it leads alone, and the others wait behind it
	time.Sleep(50 * time.Millisecond)
	for i := range 100 {
		running.Go(func() {
			if _, _, err := a.Offer(ctx, DefaultPool, "django", Want{Name: fmt.Sprint("holder-", i)}, 0); err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	running.Wait()
	stats := admin.Info(ctx, "commandstats").Val()
	if !strings.Contains(stats, "cmdstat_script|load:calls=2,") {
		t.Errorf("the two scripts were not loaded once each:\n%s", stats)
	}
}

func TestQueueStaysOpenWhenCallsAreGivenUp(t *testing.T) {
	a, _, _ := newQueueTest(t, 5*time.Second, 1000)
	var running sync.WaitGroup
	for client := range 20 {
		running.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*client%40)*10*time.Microsecond)
				a.Offer(ctx, DefaultPool, "django", Want{Name: fmt.Sprintf("holder-%d-%d", client, i)}, 0)
				cancel()
			}
		})
	}
	running.Wait()
	if _, _, err := a.Offer(t.Context(), DefaultPool, "django", Want{Name: "last"}, 0); err != nil {
		t.Errorf("after all that: %v", err)
	}
	q := a.door.queue(place{node: a.redis})
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 || q.led {
		t.Errorf("%d calls wait, led: %v", len(q.waiting), q.led)
	}
}
