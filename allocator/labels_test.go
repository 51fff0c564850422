package allocator

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

var (
	job   = NewLabels(map[string]string{"job": "4711", "url": `https://ci/"é"\{},"job":"4712"`})
	other = NewLabels(map[string]string{"job": "4712"})
)

// wantLabels compares the labels of an answer.
func wantLabels(t *testing.T, what string, got, want Labels) {
	t.Helper()
	if got != want {
		t.Errorf("%s: labels %s, want %s", what, got, want)
	}
}

// labelled returns the ports that have an entry in the key of the labels.
func labelled(t *testing.T, store storetest.Store) string {
	t.Helper()
	return fields(t, store, "labels:web")
}

// Labels go from a request to its offer and to its allocation, are in each answer about them, and go with them.
func TestLabels(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2001)
		request := Request{Name: "ann", Secret: "2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f5", Labels: job}
		for _, what := range []string{"an offer", "the same offer"} {
			offer, _, err := offerOne(ctx, a, DefaultPool, "web", request, 0)
			must(t, err)
			wantLabels(t, what, offer.Labels, job)
		}
		open, err := a.OpenOffer(ctx, Caller{}, DefaultPool, "web", request.Secret)
		must(t, err)
		wantLabels(t, "the open offer", open.Labels, job)
		offers, _, err := a.Offers(ctx, DefaultPool, "web", Filter{}, "", MaxPage)
		must(t, err)
		wantLabels(t, "the list of offers", offers[0].Labels, job)
		for _, what := range []string{"accepted", "accepted again", "claimed"} {
			allocation, _, err := a.Accept(ctx, Caller{}, DefaultPool, "web", request.Secret, nil)
			if what == "claimed" {
				allocation, _, err = claimOne(ctx, a, DefaultPool, "web", Request{Name: "ann", Secret: request.Secret, Labels: other}, 0)
			}
			must(t, err)
			wantLabels(t, what, allocation.Labels, job)
		}
		_, err = a.Renew(ctx, Caller{}, DefaultPool, "web", "ann", request.Secret, new(time.Hour))
		must(t, err)
		for _, holder := range []string{"2000", "ann"} {
			allocation, err := a.Allocation(ctx, DefaultPool, "web", holder)
			must(t, err)
			wantLabels(t, holder, allocation.Labels, job)
		}
		list, _, err := a.Allocations(ctx, DefaultPool, "web", Filter{}, "", MaxPage)
		must(t, err)
		wantLabels(t, "the list of allocations", list[0].Labels, job)
		for page, err := range a.AllPoolAllocations(ctx, DefaultPool, func(string) bool { return true }) {
			must(t, err)
			wantLabels(t, "all of the pool", page[0].Labels, job)
		}
		must(t, a.Release(ctx, Caller{}, DefaultPool, "web", "ann", Proof{}))
		if left := labelled(t, store); left != "" {
			t.Errorf("labels of %s are left", left)
		}
	})
}

// A claim of an open offer keeps the labels of the offer, unless it has its own.
func TestLabelsOfAClaimedOffer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2002)
		for i, test := range []struct{ offer, claim, want Labels }{{job, "", job}, {job, other, other}, {"", other, other}} {
			secret := fmt.Sprintf("2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f%d", i)
			request := Request{Name: fmt.Sprint("n", i), Secret: secret, Labels: test.offer}
			_, _, err := offerOne(ctx, a, DefaultPool, "web", request, 0)
			must(t, err)
			request.Labels = test.claim
			for range 2 {
				allocation, _, err := claimOne(ctx, a, DefaultPool, "web", request, 0)
				must(t, err)
				wantLabels(t, "claimed", allocation.Labels, test.want)
			}
		}
	})
}

// Labels go when their hold ends, in whichever way: before, or as, its port has another holder.
func TestLabelsEndWithTheirHold(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, short), t.Context()
		mustDefine(t, a, "web", 2000, 2001)
		for what, end := range map[string]func(Request){
			"an offer is rejected": func(r Request) {
				offer, _, err := offerOne(ctx, a, DefaultPool, "web", r, 0)
				must(t, err)
				mustReject(t, a, offer)
			},
			"an offer expires": func(r Request) {
				_, _, err := offerOne(ctx, a, DefaultPool, "web", r, 0)
				must(t, err)
				passes(t, store, short)
			},
			"a lease ends": func(r Request) {
				r.Lease = new(short)
				_, _, err := claimOne(ctx, a, DefaultPool, "web", r, 0)
				must(t, err)
				passes(t, store, short)
			},
			"a leased block is released": func(r Request) {
				r.Count, r.Lease = new(2), new(time.Hour)
				allocation, _, err := claimOne(ctx, a, DefaultPool, "web", r, 0)
				must(t, err)
				wantLabels(t, "a block", allocation.Labels, job)
				must(t, a.Release(ctx, Caller{}, DefaultPool, "web", "2001", Proof{}))
			},
		} {
			for _, next := range []string{"offered", "claimed"} {
				end(Request{Name: "ann", Labels: job})
				for _, name := range []string{"ben", "cat"} {
					if next == "offered" {
						wantLabels(t, what, mustAccept(t, a, mustOffer(t, a, "web", name)).Labels, "")
						continue
					}
					allocation, _, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: name}, 0)
					must(t, err)
					wantLabels(t, what, allocation.Labels, "")
				}
				if left := labelled(t, store); left != "" {
					t.Errorf("%s, and its port is %s: the labels of %s are left", what, next, left)
				}
				for _, name := range []string{"ben", "cat"} {
					must(t, a.Release(ctx, Caller{}, DefaultPool, "web", name, Proof{}))
				}
			}
		}
		must(t, func() error {
			_, _, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: "ann", Labels: job, Lease: new(short)}, 0)
			return err
		}())
		passes(t, store, short)
		must(t, a.Remove(ctx, Caller{}, DefaultPool, "web"))
		if left := labelled(t, store); left != "" {
			t.Errorf("the service is removed, and the labels of %s are left", left)
		}
	})
}

// What a server that knows no labels leaves behind is never taken for the labels of another holder.
func TestLabelsOfAnEarlierHolder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2000)
		entry := `{"secret":"2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f5","labels":` + string(job) + `}`
		_, _, err := claimOne(ctx, a, DefaultPool, "web", Request{Name: "ann", Labels: other}, 0)
		must(t, err)
		command(t, a, "HSET", a.keys.Pool(DefaultPool).Labels("web"), "2000", entry)
		allocation, err := a.Allocation(ctx, DefaultPool, "web", "ann")
		must(t, err)
		wantLabels(t, "read", allocation.Labels, "")
		list, _, err := a.Allocations(ctx, DefaultPool, "web", Filter{}, "", MaxPage)
		must(t, err)
		wantLabels(t, "listed", list[0].Labels, "")
	})
}

// Each request of a list has labels of its own, also if the call waits.
func TestLabelsOfAList(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2009)
		requests := []Request{{Name: "a", Labels: job, Count: new(2)}, {Name: "b"}, {Name: "c", Labels: other, Prefer: new(2009)}}
		for _, wait := range []time.Duration{0, time.Second} {
			all, _, err := a.Claim(ctx, bob, DefaultPool, "web", requests, Wait{Longest: wait})
			must(t, err)
			for i, allocation := range all {
				wantLabels(t, allocation.Name, allocation.Labels, requests[i].Labels)
				must(t, a.Release(ctx, bob, DefaultPool, "web", allocation.Name, Proof{}))
			}
		}
		if left := labelled(t, store); left != "" {
			t.Errorf("labels of %s are left", left)
		}
	})
}

// Those without labels cost what they cost while others have some.
func TestCommandsBesideLabels(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2001)
	beside := func(labels Labels) {
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "ben", Port: new(2001), Labels: labels}, 0)
		must(t, err)
	}
	cycle := func() map[string]int {
		return commandsOf(t, store, func() {
			mustAccept(t, a, mustOffer(t, a, "web", "ann"))
			_, err := a.Allocation(t.Context(), DefaultPool, "web", "ann")
			must(t, err)
			_, _, err = a.Allocations(t.Context(), DefaultPool, "web", Filter{Owner: "bob"}, "", MaxPage)
			must(t, err)
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
		})
	}
	beside("")
	cycle()
	before := cycle()
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ben", Proof{}))
	beside(job)
	if after := cycle(); !maps.Equal(after, before) {
		t.Errorf("beside labels %v, without them %v", after, before)
	}
}

func TestLabelsAreChecked(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2010)
	full := map[string]string{}
	for i := range MaxLabels {
		full[fmt.Sprintf("k%02d", i)] = strings.Repeat("x", MaxLabelBytes/MaxLabels-3)
	}
	for i, good := range []Labels{
		NewLabels(full), NewLabels(map[string]string{"a" + strings.Repeat("_", 62): strings.Repeat("é", MaxLabelValue/2)}),
		NewLabels(map[string]string{"k": ""}), NewLabels(map[string]string{}),
	} {
		if _, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: fmt.Sprint("n", i), Labels: good}, 0); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	over := maps.Clone(full)
	over["k00"] += "x"
	more := map[string]string{"more": ""}
	for key := range full {
		more[key] = ""
	}
	for _, bad := range []Labels{
		NewLabels(over), NewLabels(more), `{"b":"1","a":"2"}`, `{"a": "1"}`, `{"a":1}`, "x", `{}`,
		NewLabels(map[string]string{"": "1"}), NewLabels(map[string]string{"Job": "1"}), NewLabels(map[string]string{"1a": "1"}),
		NewLabels(map[string]string{"a-b": "1"}), NewLabels(map[string]string{"a" + strings.Repeat("_", 63): "1"}),
		NewLabels(map[string]string{"a\n": "1"}), NewLabels(map[string]string{"a": "1\x00"}), NewLabels(map[string]string{"a": "\u0085"}),
		NewLabels(map[string]string{"a": strings.Repeat("x", MaxLabelValue+1)}),
	} {
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "bad", Labels: bad}, 0)
		wantError(t, string(bad), err, ErrInvalid)
		if failed, ok := err.(*Error); ok && (len(failed.Fields) != 1 || failed.Fields[0].Field != "[0].labels") {
			t.Errorf("%s: %v", bad, failed.Fields)
		}
	}
}

// A change sets labels and removes others, keeps the rest, and nothing else of the allocation changes.
func TestChangeLabels(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, ctx := newAllocator(store, long), t.Context()
		mustDefine(t, a, "web", 2000, 2009)
		held := claimAs(t, a, bob, Request{Name: "ann", Count: new(3), Lease: new(time.Hour)})
		big, full := map[string]*string{}, map[string]*string{}
		for i := range MaxLabels {
			full[fmt.Sprintf("k%02d", i)] = new("")
			big[fmt.Sprintf("k%02d", i)] = new(strings.Repeat("x", MaxLabelBytes/MaxLabels-3))
		}
		for i, test := range []struct {
			changes map[string]*string
			want    map[string]string // nil: refused
		}{
			{map[string]*string{"gone": nil}, map[string]string{}},
			{map[string]*string{"a": new(`"\` + "\u2028é"), "b": new("")}, map[string]string{"a": `"\` + "\u2028é", "b": ""}},
			{map[string]*string{"a": nil, "c": new("3"), "gone": nil}, map[string]string{"b": "", "c": "3"}},
			{big, nil}, {full, nil}, {map[string]*string{}, nil}, {map[string]*string{"A": nil}, nil}, {map[string]*string{"a": new("\n")}, nil},
			{map[string]*string{"b": nil, "c": nil}, map[string]string{}},
			{full, map[string]string{"k00": ""}},
			{map[string]*string{"a": new("")}, nil},
			{big, map[string]string{"k00": *big["k00"]}},
			{map[string]*string{"k00": new(*big["k00"] + "x")}, nil},
		} {
			got, err := a.ChangeLabels(ctx, bob, DefaultPool, "web", []string{"ann", "2002"}[i%2], held.Secret, test.changes)
			if test.want == nil {
				wantError(t, fmt.Sprint("change ", i), err, ErrInvalid)
				continue
			}
			must(t, err)
			if len(test.changes) < MaxLabels {
				wantLabels(t, fmt.Sprint("change ", i), got.Labels, NewLabels(test.want))
			}
			now, err := a.Allocation(ctx, DefaultPool, "web", "ann")
			must(t, err)
			before := held
			if before.Secret, before.Labels = "", got.Labels; now != before || now != got {
				t.Errorf("change %d: %+v, want %+v", i, now, before)
			}
			if kept := labelled(t, store); (kept == "") != (got.Labels == "") {
				t.Errorf("change %d: labels %s are kept as %q", i, got.Labels, kept)
			}
		}
		for what, change := range map[*Error]func() error{
			ErrSecretMismatch: func() error {
				_, err := a.ChangeLabels(ctx, bob, DefaultPool, "web", "ann", "2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f5", full)
				return err
			},
			ErrNotOwner: func() error {
				_, err := a.ChangeLabels(ctx, ann, DefaultPool, "web", "ann", held.Secret, full)
				return err
			},
			ErrPortNotFound: func() error {
				_, err := a.ChangeLabels(ctx, bob, DefaultPool, "web", "ben", held.Secret, full)
				return err
			},
			ErrServiceNotFound: func() error {
				_, err := a.ChangeLabels(ctx, bob, DefaultPool, "none", "ann", held.Secret, full)
				return err
			},
		} {
			wantError(t, string(what.Code), change(), what)
		}
		found, err := check(ctx, a, false)
		if must(t, err); len(found) > 0 {
			t.Errorf("found %+v", found)
		}
	})
}
