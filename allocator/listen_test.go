package allocator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// happens writes an event to a history, with the id that Redis gives it, or with a given one.
func happens(t *testing.T, store storetest.Store, service, id, kind string, fields ...string) string {
	t.Helper()
	id, err := store.Admin.XAdd(t.Context(), &redis.XAddArgs{
		Stream: store.Prefix + ":{default}:events:" + service, ID: id, Values: append([]string{"event", kind}, fields...),
	}).Result()
	must(t, err)
	time.Sleep(2 * time.Millisecond) // events of a millisecond are in no order
	return id
}

// listen returns a Listener that ends with the test.
func listen(t *testing.T, a *Allocator, service, after string) *Listener {
	t.Helper()
	l, err := a.Listen(t.Context(), DefaultPool, service, after)
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

// hears waits until a Listener has heard of some events, and compares them: "kind service name".
func hears(t *testing.T, l *Listener, want ...string) (last Event) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(20 * time.Second); len(got) < len(want) && time.Now().Before(deadline); {
		events, err := l.Next(t.Context())
		must(t, err)
		for _, e := range events {
			got, last = append(got, strings.TrimRight(fmt.Sprintf("%s %s %s", e.Kind, e.Service, e.Name), " ")), e
		}
		select {
		case <-l.Wake():
		case <-time.After(10 * time.Millisecond):
		}
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Fatalf("heard %q, want %q", got, want)
	}
	return last
}

func TestListen(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2009)
		mustDefine(t, a, "db", 3000, 3009)
		happens(t, store, "web", "*", "allocated", "name", "old", "port", "2000")
		web, all := listen(t, a, "web", ""), listen(t, a, "", "")
		ready := hears(t, web, "ready web")
		hears(t, all, "ready")
		happens(t, store, "web", "*", "allocated", "name", "a", "port", "2001")
		happens(t, store, "db", "*", "allocated", "name", "b", "port", "3000")
		happens(t, store, "web", "*", "released", "name", "a", "port", "2001")
		hears(t, web, "allocated web a", "released web a")
		hears(t, all, "allocated web a", "allocated db b", "released web a")
		again := listen(t, a, "web", ready.ID)
		hears(t, again, "ready web", "allocated web a", "released web a")
		happens(t, store, "web", "*", "allocated", "name", "c", "port", "2001")
		hears(t, again, "allocated web c")
		hears(t, web, "allocated web c")
	})
}

// A service that is defined while somebody listens to all is heard of, from its first event.
func TestListenToNewServices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		all := listen(t, a, "", "")
		hears(t, all, "ready")
		for i := range 3 {
			name := fmt.Sprintf("s%d", i)
			mustDefine(t, a, name, 2000+10*i, 2009+10*i)
			happens(t, store, name, "*", "defined", "start", "2000", "end", "2009")
			happens(t, store, name, "*", "allocated", "name", "a", "port", "2000")
			hears(t, all, "defined "+name, "allocated "+name+" a")
		}
		must(t, a.Remove(t.Context(), Caller{}, DefaultPool, "s1"))
		happens(t, store, "s1", "*", "removed")
		hears(t, all, "removed s1")
		happens(t, store, "s2", "*", "released", "name", "a", "port", "2000")
		hears(t, all, "released s2 a")
	})
}

// Events of a millisecond that is not over are held back, so that none can come before them.
func TestEventsAreHeldBack(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	now := time.UnixMilli(time.Now().UnixMilli())
	store.Mini.SetTime(now)
	happens(t, store, "web", fmt.Sprint(now.UnixMilli()-1, "-0"), "allocated", "name", "before")
	happens(t, store, "web", fmt.Sprint(now.UnixMilli(), "-0"), "allocated", "name", "now")
	happens(t, store, "db", fmt.Sprint(now.UnixMilli(), "-0"), "allocated", "name", "now")
	read := func(hold bool, want int, wantWithheld bool) {
		t.Helper()
		r, err := a.readEvents(t.Context(), a.keys.Pool(DefaultPool), map[string]eventID{"web": {}, "db": {}}, false, hold)
		must(t, err)
		if len(r.events) != want || r.withheld != wantWithheld {
			t.Errorf("%d events, withheld %v, want %d and %v", len(r.events), r.withheld, want, wantWithheld)
		}
	}
	read(true, 1, true)
	read(false, 3, false)
	store.Mini.SetTime(now.Add(time.Millisecond))
	read(true, 3, false)
}
