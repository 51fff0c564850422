package allocator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// withHistory returns an Allocator that keeps so many events of a service.
func withHistory(store storetest.Store, ttl time.Duration, length int) *Allocator {
	a := newAllocator(store, ttl)
	a.opts.History = length
	return a
}

// eventFields are the fields of an event, in their order.
var eventFields = []string{"event", "name", "port", "count", "fence", "owner", "start", "end", "ranges", "request", "until"}

// eventsOf returns the history of a service, an event a line, oldest first. The fields of each must be in their order.
func eventsOf(t testing.TB, store storetest.Store, pool, service string) (lines []string) {
	t.Helper()
	key := fmt.Sprintf("%s:{%s}:events:%s", store.Prefix, pool, service)
	answer, err := store.Admin.Do(t.Context(), "XRANGE", key, "-", "+").Slice()
	if err != nil {
		t.Fatal(err)
	}
	lines, _ = eventLines(t, answer)
	return lines
}

// eventLines returns events as lines, and the id of the last.
func eventLines(t interface{ Errorf(string, ...any) }, answer []any) (lines []string, last string) {
	for _, entry := range answer {
		fields, line, at := entry.([]any)[1].([]any), "", -1
		last = entry.([]any)[0].(string)
		for i := 0; i < len(fields); i += 2 {
			place := slices.Index(eventFields, fields[i].(string))
			if place <= at || fields[i+1] == "" {
				t.Errorf("an event has these fields: %q", fields)
			}
			at = place
			line += fmt.Sprintf(" %s=%s", fields[i], fields[i+1])
		}
		lines = append(lines, strings.TrimPrefix(line, " event="))
	}
	return lines, last
}

// written compares the events that a service has got since the last call.
type written struct {
	t     *testing.T
	store storetest.Store
	seen  int
}

func (w *written) must(what string, want ...string) {
	w.t.Helper()
	all := eventsOf(w.t, w.store, DefaultPool, "web")
	if len(all) < w.seen || !slices.Equal(all[w.seen:], want) {
		w.t.Errorf("%s: the events are\n%s\nwant at the end\n%s", what, strings.Join(all, "\n"), strings.Join(want, "\n"))
	}
	w.seen = len(all)
}

func (a Allocation) event(event, request string) string {
	line := fmt.Sprintf("%s name=%s port=%d", event, a.Name, a.Port)
	if a.Count > 1 {
		line += fmt.Sprintf(" count=%d", a.Count)
	}
	line += fmt.Sprintf(" fence=%d", a.Fence)
	if a.Owner != "" {
		line += " owner=" + a.Owner
	}
	if request != "" {
		line += " request=" + request
	}
	if !a.Expires.IsZero() {
		line += fmt.Sprintf(" until=%d", a.Expires.UnixMilli())
	}
	return line
}

func TestEventsOfPorts(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := withHistory(store, long, 100), t.Context()
		w := &written{t: t, store: store}
		nobody, ci, operator := Caller{RequestID: "r0"}, Caller{Owner: "ci", RequestID: "r1"}, Caller{Owner: "ops", IsOperator: true, RequestID: "r2"}
		claim := func(caller Caller, requests ...Request) []Allocation {
			t.Helper()
			allocations, _, err := a.Claim(ctx, caller, DefaultPool, "web", requests, Wait{})
			must(t, err)
			return allocations
		}
		_, _, err := a.Define(ctx, nobody, DefaultPool, Definition{Name: "web", Start: 2000, End: 2199})
		must(t, err)
		w.must("defined", "defined start=2000 end=2199 request=r0")

		for _, lease := range []*time.Duration{nil, new(time.Hour)} { // the short path and the long one
			offers, _, err := a.Offer(ctx, nobody, DefaultPool, "web", []Request{{Name: "ann"}}, Wait{})
			must(t, err)
			w.must("offered")
			accept := func() Allocation {
				allocation, _, err := a.Accept(ctx, nobody, DefaultPool, "web", offers[0].Secret, lease)
				must(t, err)
				return allocation
			}
			ann := accept()
			w.must("accepted", ann.event("allocated", "r0"))
			accept()
			w.must("accepted again")
			_, err = a.Renew(ctx, nobody, DefaultPool, "web", "ann", offers[0].Secret, lease)
			if lease != nil {
				must(t, err)
				w.must("renewed")
			}
			ann, err = a.Allocation(ctx, DefaultPool, "web", "ann")
			must(t, err)
			must(t, a.Release(ctx, ci, DefaultPool, "web", "ann", Proof{}))
			w.must("released", ann.event("released", "r1"))
		}

		job := Request{Name: "job", Secret: "5f0c7a52-6d5e-4c5f-9d55-64d1a9f4a001", Lease: new(time.Hour)}
		own := claim(ci, job)
		w.must("claimed", own[0].event("allocated", "r1"))
		claim(ci, job)
		w.must("claimed again")
		_, err = a.Renew(ctx, ci, DefaultPool, "web", "job", job.Secret, nil)
		must(t, err)
		w.must("renewed by its owner")
		renewed, err := a.Renew(ctx, operator, DefaultPool, "web", "job", job.Secret, new(2*time.Hour))
		must(t, err)
		w.must("renewed by an operator", renewed.event("renewed", "r2"))
		for range 2 {
			must(t, a.Release(ctx, operator, DefaultPool, "web", "job", Proof{Secret: job.Secret}))
		}
		w.must("released twice", renewed.event("released", "r2"))

		several := claim(nobody, Request{Name: "a"}, Request{Name: "block", Count: new(100)}, Request{Name: "c", Lease: new(time.Hour)})
		w.must("a list", several[0].event("allocated", "r0"), several[1].event("allocated", "r0"), several[2].event("allocated", "r0"))
		must(t, a.Release(ctx, nobody, DefaultPool, "web", "block", Proof{}))
		w.must("a block", several[1].event("released", "r0"))

		for _, inUse := range []bool{false, true} {
			offers, _, err := a.Offer(ctx, ci, DefaultPool, "web", []Request{{Name: "bob", Count: new(2)}}, Wait{})
			must(t, err)
			for range 2 {
				_, err = a.Reject(ctx, ci, DefaultPool, "web", offers[0].Secret, inUse)
				must(t, err)
			}
			if !inUse {
				w.must("rejected")
			} else {
				w.must("in use", fmt.Sprintf("in_use name=bob port=%d count=2 owner=ci request=r1", offers[0].Port))
			}
		}
	})
}

// A lease that ran out is an event when a script clears it: it hands out the port or the name, changes the range, or removes the service.
func TestEventsOfLeasesThatEnded(t *testing.T) {
	clear := map[string]func(t *testing.T, a *Allocator, ended Allocation) error{
		"its port is offered": func(t *testing.T, a *Allocator, ended Allocation) error {
			_, _, err := offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "next", Port: &ended.Port}, 0)
			return err
		},
		"its name is claimed": func(t *testing.T, a *Allocator, ended Allocation) error {
			_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "ann"}, 0)
			return err
		},
		"it is joined to a block": func(t *testing.T, a *Allocator, ended Allocation) error {
			_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "next", Count: new(10)}, 0)
			return err
		},
		"its port leaves the range": func(t *testing.T, a *Allocator, ended Allocation) error {
			_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2008, End: 2009})
			return err
		},
		"the service is removed": func(t *testing.T, a *Allocator, ended Allocation) error {
			return a.Remove(t.Context(), Caller{}, DefaultPool, "web")
		},
	}
	for what, do := range clear {
		t.Run(what, func(t *testing.T) {
			storetest.Each(t, func(t *testing.T, store storetest.Store) {
				a := withHistory(store, long, 100)
				mustDefine(t, a, "web", 2000, 2009)
				leased, _, err := a.Claim(t.Context(), Caller{Owner: "ci"}, DefaultPool, "web",
					[]Request{{Name: "ann", Count: new(3), Lease: new(short)}}, Wait{})
				must(t, err)
				passes(t, store, 2*short)
				before := len(eventsOf(t, store, DefaultPool, "web"))
				if _, err := a.Allocation(t.Context(), DefaultPool, "web", "ann"); err == nil {
					t.Error("the lease goes on")
				}
				must(t, do(t, a, leased[0]))
				got := eventsOf(t, store, DefaultPool, "web")[before:]
				expired := slices.DeleteFunc(slices.Clone(got), func(line string) bool { return !strings.HasPrefix(line, "expired") })
				if want := leased[0].event("expired", ""); !slices.Equal(expired, []string{want}) {
					t.Errorf("the events are\n%s\nwant once\n%s", strings.Join(got, "\n"), want)
				}
			})
		})
	}
}

// The history of a service outlives it, for a while; that of one that is defined again goes on.
func TestHistoryOfAService(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx, operator := withHistory(store, long, 100), t.Context(), Caller{RequestID: "r1"}
		w := &written{t: t, store: store}
		key := a.keys.Pool(DefaultPool).Events("web")
		ttl := func() time.Duration {
			left, err := store.Admin.TTL(ctx, key).Result()
			must(t, err)
			return left
		}
		define := func(d Definition) {
			t.Helper()
			_, _, err := a.Define(ctx, operator, DefaultPool, d)
			must(t, err)
		}
		web := Definition{Name: "web", Start: 2000, End: 2009}
		define(web)
		w.must("defined", "defined start=2000 end=2009 request=r1")
		define(web)
		w.must("defined as it was")
		for _, change := range []func(){
			func() { web.End = 2019 }, func() { web.Start = 2005 }, func() { web.Description = "web servers" }, func() { web.Cooldown = time.Second },
		} {
			change()
			define(web)
			w.must("changed", fmt.Sprintf("changed start=%d end=%d request=r1", web.Start, web.End))
		}
		_, _, err := a.Define(ctx, operator, DefaultPool, Definition{Name: "web", Start: 1, End: 2})
		wantError(t, "a wrong range", err, ErrInvalid)
		wantError(t, "no such service", a.Remove(ctx, operator, DefaultPool, "none"), ErrServiceNotFound)
		w.must("refused")
		must(t, a.Remove(ctx, operator, DefaultPool, "web"))
		w.must("removed", "removed request=r1")
		if left := ttl(); left < 30*24*time.Hour || left > 31*24*time.Hour {
			t.Errorf("the history of a removed service is kept for %v", left)
		}
		define(web)
		w.must("defined again", "defined start=2005 end=2019 request=r1")
		if left := ttl(); left >= 0 {
			t.Errorf("the history of a service is kept for %v", left)
		}

		off := withHistory(store, long, 0) // as a server that is started with another setting
		_, _, err = claimOne(ctx, off, DefaultPool, "web", Request{Name: "ann", Lease: new(time.Hour)}, 0)
		must(t, err)
		must(t, off.Release(ctx, operator, DefaultPool, "web", "ann", Proof{}))
		mustDefine(t, off, "web", 2000, 2019)
		must(t, off.Remove(ctx, operator, DefaultPool, "web"))
		w.must("switched off")
		if ttl() < 0 {
			t.Error("a history that is switched off outlives its service")
		}
		mustDefine(t, off, "web", 2000, 2019)
		w.must("switched off")
		if ttl() >= 0 {
			t.Error("a history that is switched off ends, although its service was defined again")
		}
		mustClaim(t, a, Request{Name: "ann"})
		if got := eventsOf(t, store, DefaultPool, "web"); len(got) != w.seen+1 {
			t.Errorf("switched on again, the history is\n%s", strings.Join(got, "\n"))
		}
	})
}

// The history of a service has a bound, which may be lowered.
func TestHistoryIsBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		length := func(most, slack int) {
			t.Helper()
			a := withHistory(store, long, most)
			mustDefine(t, a, "web", 2000, 2009)
			for range 600 {
				mustClaim(t, a, Request{Name: "ann"})
				must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
			}
			if got := len(eventsOf(t, store, DefaultPool, "web")); got < most || got > most+slack {
				t.Errorf("the history has %d events, of %d", got, most)
			}
		}
		const late = 100 + 20*trimming // Redis drops 100 at a time, and not every event drops any
		length(1000, late)
		length(10, late)
		length(500, late)
	})
}

// A server whose user may not write a history says so at its start. One that is there all the same loses events, and nothing else.
func TestHistoryThatMayNotBeWritten(t *testing.T) {
	store, _, _ := storetest.Private(t)
	must(t, store.Admin.Do(t.Context(), "ACL", "SETUSER", "older", "on", ">secret", "~*", "&*", "+@all", "-xadd", "-persist").Err())
	options := store.Options()
	options.Username, options.Password = "older", "secret"
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	store.Client = client
	if err := withHistory(store, long, 0).Greet(t.Context()); err != nil {
		t.Errorf("without a history: %v", err)
	}
	a := withHistory(store, long, 100)
	if err := a.Greet(t.Context()); err == nil || !strings.Contains(err.Error(), "NOPERM") || !strings.Contains(err.Error(), "xadd") {
		t.Errorf("with one: %v", err)
	}
	for range 2 {
		mustDefine(t, a, "web", 2000, 2009)
		mustAccept(t, a, mustOffer(t, a, "web", "ann"))
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
		must(t, a.Remove(t.Context(), Caller{}, DefaultPool, "web"))
	}
}
