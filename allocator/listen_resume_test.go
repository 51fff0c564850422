package allocator

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// A client that comes back with the id of the last event that it got misses none, and gets none twice, but for those of one id; also if
// it leaves in the middle of events of many services in the same millisecond.
func TestResumeMissesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		const services, each = 7, 150
		begin := listen(t, a, "", "")
		last := hears(t, begin, "ready").ID
		var writers sync.WaitGroup
		for s := range services {
			name := fmt.Sprint("s", s)
			mustDefine(t, a, name, 2000+10*s, 2009+10*s)
			writers.Go(func() {
				for i := range each {
					store.Admin.XAdd(t.Context(), &redis.XAddArgs{
						Stream: store.Prefix + ":{default}:events:" + name, Values: []string{"event", "allocated", "name", fmt.Sprint("n", i)},
					})
				}
			})
		}
		got, twice, resumed := map[string]int{}, 0, 0
		l := begin
		defer func() { l.Close() }()
		for deadline := time.Now().Add(30 * time.Second); len(got) < services*each; {
			if time.Now().After(deadline) {
				t.Fatalf("heard %d of %d events after %d resumptions", len(got), services*each, resumed)
			}
			events, err := l.Next(t.Context())
			must(t, err)
			leaves := len(events) > 0 && resumed < 20
			for i, e := range events {
				if leaves && i == len(events)/2 {
					break // and what comes behind is lost on the way
				}
				switch e.Kind {
				case EventReset:
					t.Fatalf("reset after %s", last)
				case EventAllocated:
					if got[e.Service+e.Name]++; got[e.Service+e.Name] > 1 {
						twice++
					}
				}
				if !e.Tied {
					last = e.ID
				}
			}
			if leaves {
				l.Close()
				l, err = a.Listen(t.Context(), DefaultPool, "", last)
				must(t, err)
				resumed++
			}
		}
		writers.Wait()
		if resumed < 3 || twice > resumed*services {
			t.Errorf("%d resumptions, %d events came twice", resumed, twice)
		}
	})
}

// What was trimmed, or is not there any more, cannot be resumed.
func TestResumeAfterWhatIsGone(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		mustDefine(t, a, "db", 3000, 3009)
		a.opts.History = 3
		happens(t, store, "web", "5-0", "allocated", "name", "a")
		happens(t, store, "db", "6-0", "allocated", "name", "b")
		happens(t, store, "web", "7-0", "allocated", "name", "c")
		for _, test := range []struct{ service, after, want string }{
			{"web", "5-0", "ready web 5-0, allocated web 7-0"},
			{"web", "7-0", "ready web 7-0"},
			{"web", "0-0", "ready web 0-0, allocated web 5-0, allocated web 7-0"},
			{"web", "4-0", "reset web 7-0, ready web 7-0"}, // was there, or never
			{"web", "6-0", "reset web 7-0, ready web 7-0"}, // of another service
			{"web", "8-0", "reset web 7-0, ready web 7-0"}, // of a newer state
			{"", "6-0", "ready  6-0, allocated web 7-0"},
			{"", "5-0", "ready  5-0, allocated db 6-0, allocated web 7-0"},
			{"", "8-0", "reset  7-0, ready  7-0"},
		} {
			l := listen(t, a, test.service, test.after)
			var got []string
			for range 1 + strings.Count(test.want, ",") + 3 {
				events, err := l.Next(t.Context())
				must(t, err)
				for _, e := range events {
					got = append(got, fmt.Sprintf("%s %s %s", e.Kind, e.Service, e.ID))
				}
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("%q after %s: %q, want %q", test.service, test.after, got, test.want)
			}
		}
		key := store.Prefix + ":{default}:events:"
		for i := range 3 {
			happens(t, store, "db", fmt.Sprint(8+i, "-0"), "allocated", "name", "d")
		}
		must(t, store.Admin.XTrimMaxLen(t.Context(), key+"db", 3).Err())
		hears(t, listen(t, a, "", "7-0"), "reset", "ready") // db may have had an event after that
		hears(t, listen(t, a, "", "8-0"), "ready", "allocated db d", "allocated db d")
	})
}

// If the state goes back behind what was handed out, who listens is told, and hears what comes then.
func TestListenWhileStateGoesBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		mustDefine(t, a, "db", 3000, 3009)
		happens(t, store, "web", "5-0", "allocated", "name", "a")
		happens(t, store, "db", "5-0", "allocated", "name", "a")
		web, db, all := listen(t, a, "web", ""), listen(t, a, "db", ""), listen(t, a, "", "")
		hears(t, web, "ready web")
		hears(t, db, "ready db")
		hears(t, all, "ready")
		happens(t, store, "web", "*", "allocated", "name", "lost")
		lost := hears(t, web, "allocated web lost")
		hears(t, all, "allocated web lost")
		must(t, store.Admin.XDel(t.Context(), store.Prefix+":{default}:events:web", lost.ID).Err())
		next := happens(t, store, "web", "*", "allocated", "name", "next")
		if e := hears(t, web, "reset web"); e.ID != next {
			t.Errorf("it goes on after %s, and not after %s", e.ID, next)
		}
		hears(t, all, "reset")
		happens(t, store, "db", "*", "allocated", "name", "b")
		happens(t, store, "web", "*", "released", "name", "next")
		hears(t, db, "allocated db b")
		hears(t, web, "released web next")
		hears(t, all, "allocated db b", "released web next")
	})
}

func TestListenRefusesTooManyServices(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	for i := range maxFollowed {
		must(t, store.Admin.ZAdd(t.Context(), store.Prefix+":{default}:services", redis.Z{Score: float64(i), Member: fmt.Sprint("s", i)}).Err())
	}
	l := listen(t, a, "", "")
	hears(t, l, "ready")
	happens(t, store, "s999", "*", "allocated", "name", "a")
	hears(t, l, "allocated s999 a")
	must(t, store.Admin.ZAdd(t.Context(), store.Prefix+":{default}:services", redis.Z{Score: 5000, Member: "more"}).Err())
	_, err := a.Listen(t.Context(), DefaultPool, "", "")
	wantError(t, "with one more", err, ErrLimitReached)
	for err = nil; err == nil; _, err = l.Next(t.Context()) {
		<-l.Wake()
	}
	wantError(t, "the one that listened", err, ErrLimitReached)
}

// A Listener that does not keep up ends; others do not notice. Nothing runs on when nobody listens.
func TestListenersThatAreSlowOrGone(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2009)
	slow, quick := listen(t, a, "web", ""), listen(t, a, "web", "")
	hears(t, slow, "ready web")
	hears(t, quick, "ready web")
	for n, heard := 0, 0; n < 4*eventsPerBuffer; {
		for range eventsPerBuffer {
			n++
			must(t, store.Admin.XAdd(t.Context(), &redis.XAddArgs{
				Stream: store.Prefix + ":{default}:events:web", Values: []string{"event", "allocated"},
			}).Err())
		}
		for heard < n {
			events, err := quick.Next(t.Context())
			must(t, err)
			heard += len(events)
		}
	}
	if _, err := slow.Next(t.Context()); err != ErrSlow {
		t.Errorf("the slow one: %v", err)
	}
	slow.Close()
	quick.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		a.followers.mu.Lock()
		left := len(a.followers.of)
		a.followers.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a follower runs on")
		}
	}
}
