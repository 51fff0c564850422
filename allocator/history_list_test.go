package allocator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// historyOf lists what a filter finds in the history of a service of the default pool, page by page: "kind name port".
func historyOf(t *testing.T, a *Allocator, service string, filter HistoryFilter, limit int) string {
	t.Helper()
	return pages(t, limit, func(cursor string) (items []string, next string, err error) {
		events, next, err := a.History(t.Context(), DefaultPool, service, filter, cursor, limit)
		for _, e := range events {
			items = append(items, strings.TrimSuffix(strings.TrimSpace(fmt.Sprint(e.Kind, " ", e.Name, " ", e.Port)), "  0"))
		}
		return items, next, err
	})
}

// newRecorder returns an Allocator that keeps a history.
func newRecorder(store storetest.Store) *Allocator {
	a := newAllocator(store, long)
	a.opts.History = 1000
	return a
}

func TestHistory(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newRecorder(store), t.Context()
		mustDefine(t, a, "web", 2000, 2009)
		claim := func(owner, name string, count int) Allocation {
			t.Helper()
			all, _, err := a.Claim(ctx, Caller{Owner: owner, RequestID: "r-" + name}, DefaultPool, "web",
				[]Request{{Name: name, Count: optional(count)}}, Wait{})
			must(t, err)
			return all[0]
		}
		claim("ci", "a", 1)
		block := claim("", "b", 3) // 2001-2003
		must(t, a.Release(ctx, Caller{RequestID: "bye"}, DefaultPool, "web", "a", Proof{}))
		offer := mustOffer(t, a, "web", "c")
		_, err := a.Reject(ctx, Caller{}, DefaultPool, "web", offer.Secret, true)
		must(t, err)

		port := 2002
		for _, test := range []struct {
			filter HistoryFilter
			want   string
		}{
			{HistoryFilter{}, fmt.Sprintf("in_use c %d,released a 2000,allocated b 2001,allocated a 2000,defined", offer.Port)},
			{HistoryFilter{Port: &port}, "allocated b 2001"},
			{HistoryFilter{Name: "a"}, "released a 2000,allocated a 2000"},
			{HistoryFilter{Owner: "ci"}, "released a 2000,allocated a 2000"},
			{HistoryFilter{Name: "nobody"}, ""},
			{HistoryFilter{Since: time.Now().Add(time.Hour)}, ""},
			{HistoryFilter{Until: time.Now().Add(-time.Hour)}, ""},
		} {
			for _, limit := range []int{1, 2, 1000} {
				if got := historyOf(t, a, "web", test.filter, limit); strings.ReplaceAll(got, ",,", ",") != test.want {
					t.Errorf("%+v, %d a page: %s, want %s", test.filter, limit, got, test.want)
				}
			}
		}
		events, _, err := a.History(ctx, DefaultPool, "web", HistoryFilter{Name: "b"}, "", 10)
		must(t, err)
		e := events[0]
		if e.Fence != block.Fence || e.Count != 3 || e.RequestID != "r-b" || e.Time.Before(block.Created) || !e.Until.IsZero() || !e.Expired.IsZero() {
			t.Errorf("the event is %+v, of %+v", e, block)
		}
		// The bounds of a time: since is included, until is not.
		if got := historyOf(t, a, "web", HistoryFilter{Name: "b", Since: e.Time, Until: e.Time.Add(time.Millisecond)}, 10); got != "allocated b 2001" {
			t.Errorf("at its time: %q", got)
		}
		if got := historyOf(t, a, "web", HistoryFilter{Name: "b", Since: e.Time.Add(1)}, 10); got != "" {
			t.Errorf("after its time: %q", got)
		}
		if got := historyOf(t, a, "web", HistoryFilter{Name: "b", Until: e.Time}, 10); got != "" {
			t.Errorf("until its time: %q", got)
		}
	})
}

// The history of a service outlives it; a service that never was has none.
func TestHistoryOfRemovedService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newRecorder(store)
		mustDefine(t, a, "web", 2000, 2009)
		must(t, a.Remove(t.Context(), Caller{}, DefaultPool, "web"))
		if got := historyOf(t, a, "web", HistoryFilter{}, 10); got != "removed,defined" {
			t.Errorf("it is %q", got)
		}
		_, _, err := a.History(t.Context(), DefaultPool, "never", HistoryFilter{}, "", 10)
		wantError(t, "history", err, ErrServiceNotFound)
		_, err = a.Listen(t.Context(), DefaultPool, "never", "")
		wantError(t, "listen", err, ErrServiceNotFound)
	})
}

// Who had a port, or which port a name had, at a time.
func TestHeldAt(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newRecorder(store), t.Context()
		mustDefine(t, a, "web", 2000, 2000)
		port, second := 2000, time.Second
		held := func(at time.Time, want string) {
			t.Helper()
			for _, filter := range []HistoryFilter{{Port: &port, At: at}, {Name: "b", At: at}, {Port: &port, Name: "b", At: at}} {
				expect := want
				if filter.Name == "b" && want != "allocated b 2000" {
					expect = ""
				}
				if got := historyOf(t, a, "web", filter, 10); got != expect {
					t.Errorf("%+v: %q, want %q", filter, got, expect)
				}
			}
		}
		now := func() time.Time { return storeTime(t, store) }
		first, _, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: "a"}, 0)
		must(t, err)
		passes(t, store, 5*time.Millisecond)
		whileFirst := now()
		passes(t, store, 5*time.Millisecond)
		must(t, a.Release(ctx, Caller{}, DefaultPool, "web", "a", Proof{}))
		passes(t, store, 5*time.Millisecond)
		between := now()
		passes(t, store, 5*time.Millisecond)
		leased, _, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: "b", Lease: &second}, 0)
		must(t, err)

		held(first.Created.Add(-time.Second), "")
		held(whileFirst, "allocated a 2000")
		held(between, "")
		held(leased.Expires, "allocated b 2000") // it may be renewed until then
		passes(t, store, second+10*time.Millisecond)
		ended := now()
		held(leased.Expires.Add(-time.Millisecond), "allocated b 2000")
		held(leased.Expires, "")
		held(ended, "")
		events, _, err := a.History(ctx, DefaultPool, "web", HistoryFilter{Name: "b"}, "", 10)
		must(t, err)
		if len(events) != 1 || !events[0].Expired.Equal(leased.Expires) || !events[0].Until.Equal(leased.Expires) {
			t.Errorf("without an event of its end: %+v", events)
		}
		passes(t, store, 5*time.Millisecond)
		_, _, err = claimOne(ctx, a, DefaultPool, "web", Request{Name: "c"}, 0) // now there is one
		must(t, err)
		held(leased.Expires.Add(-time.Millisecond), "allocated b 2000")
		held(leased.Expires, "")
		held(ended, "")
		passes(t, store, 5*time.Millisecond)
		held(now(), "allocated c 2000")
		if got := historyOf(t, a, "web", HistoryFilter{Name: "b"}, 10); got != "expired b 2000,allocated b 2000" {
			t.Errorf("with an event of its end: %s", got)
		}
	})
}

// A page ends early if what it reads does not match, and leads on.
func TestHistoryReadsOnlySoMuch(t *testing.T) {
	a := newAllocator(storetest.Mini(t), long)
	mustDefine(t, a, "web", 2000, 2009)
	key := a.keys.Pool(DefaultPool).Events("web")
	for i := range eventsPerPage + 1 {
		command(t, a, "XADD", key, fmt.Sprint(1000+i, "-0"), "event", "allocated", "name", []string{"old", "new"}[min(i, 1)], "port", 2000)
	}
	filter := HistoryFilter{Name: "old"}
	events, next, err := a.History(t.Context(), DefaultPool, "web", filter, "", 10)
	must(t, err)
	if len(events) != 0 || next == "" {
		t.Fatalf("the first page has %v, and the next is %q", events, next)
	}
	events, next, err = a.History(t.Context(), DefaultPool, "web", filter, next, 10)
	must(t, err)
	if len(events) != 1 || events[0].Name != "old" || next != "" {
		t.Errorf("the second page has %v, and the next is %q", events, next)
	}
}

func TestHistoryRefuses(t *testing.T) {
	a := newAllocator(storetest.Mini(t), long)
	mustDefine(t, a, "web", 2000, 2009)
	now, port := time.Now(), 70000
	for want, filter := range map[string]HistoryFilter{
		"port":  {Port: &port},
		"name":  {Name: "-"},
		"owner": {Owner: "a b"},
		"since": {Since: now, Until: now},
		"at":    {At: now},
		"at ":   {At: now, Name: "a", Since: now},
	} {
		_, _, err := a.History(t.Context(), DefaultPool, "web", filter, "", 10)
		failed, _ := err.(*Error)
		if failed == nil || failed.Code != CodeInvalid || failed.Fields[0].Field != strings.TrimSpace(want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, cursor := range []string{"x", "5", "1-1-1", "01-0", "1-99999999999999999999"} {
		_, _, err := a.History(t.Context(), DefaultPool, "web", HistoryFilter{}, cursor, 10)
		wantError(t, cursor, err, ErrInvalid)
		_, err = a.Listen(t.Context(), DefaultPool, "web", cursor)
		wantError(t, cursor, err, ErrInvalid)
	}
}
