package allocator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// A walk makes random calls on a service that is narrowed and widened around its holders, and compares it with what it should be after
// each: who has which port, and until when the others rest. TestModel, which knows no drain, has the rest.

const (
	walkMin, walkMax = 2000, 2039
	walkRest         = 700 * time.Millisecond // of a port that was found in use
)

// walkHold is who has ports.
type walkHold struct {
	name, secret string
	port, count  int
	offered      bool
	expires      time.Time // zero: never
}

func (h *walkHold) has(port int) bool { return port >= h.port && port < h.port+h.count }

type drainWalk struct {
	t        *testing.T
	a        *Allocator
	store    storetest.Store
	random   *rand.Rand
	now      time.Time
	cooldown time.Duration

	pick      Pick
	byDefault *time.Duration // lease

	ranges []Range
	holds  []*walkHold
	rests  map[int]time.Time // port -> until when nobody gets it
	names  int
	calls  []string
	seen   map[string]int
}

func TestDrainWalk(t *testing.T) {
	t.Parallel()
	const steps = 1500
	walks := func(t *testing.T, store storetest.Store) {
		for seed, cooldown := range []time.Duration{0, 400 * time.Millisecond} {
			a := newAllocator(store, 600*time.Millisecond)
			a.opts.Quarantine = walkRest
			w := &drainWalk{t: t, a: a, store: store, random: rand.New(rand.NewPCG(uint64(seed), 16)),
				now:      modelStart.Add(time.Duration(seed) * time.Hour),
				cooldown: cooldown, rests: map[int]time.Time{}, seen: map[string]int{}}
			if seed == 1 {
				w.pick, w.byDefault = PickByName, optional(5*time.Second)
			}
			w.walk(steps)
		}
	}
	t.Run("miniredis", func(t *testing.T) { walks(t, storetest.Mini(t)) })
	t.Run("redis", func(t *testing.T) { walks(t, clocked(t)) })
}

func (w *drainWalk) walk(steps int) {
	acts := []struct {
		weight int
		do     func() string
	}{
		{4, w.define}, {1, w.other}, {8, w.take}, {2, w.accept}, {2, w.reject}, {4, w.release}, {2, w.renew}, {3, w.pass},
	}
	var weighted []func() string
	for _, act := range acts {
		weighted = append(weighted, slices.Repeat([]func() string{act.do}, act.weight)...)
	}
	w.setTime(0)
	w.ranges = []Range{{walkMin, walkMax}}
	w.put(w.ranges, false)
	for range steps {
		w.seen[w.did(weighted[w.random.IntN(len(weighted))]())]++
		w.compare()
		if w.t.Failed() {
			w.t.Fatalf("after\n%s", strings.Join(w.calls[max(0, len(w.calls)-40):], "\n"))
		}
	}
	for _, outcome := range []string{"narrowed", "narrowed around", "refused", "widened", "other: gone", "other: overlap", "taken", "not free",
		"accepted", "rejected", "rejected in use", "rejected, drains", "rejected in use, drains", "released", "released in use",
		"released, drains", "released in use, drains", "renewed, drains"} {
		if w.seen[outcome] == 0 {
			w.t.Errorf("never seen: %s, of %v", outcome, w.seen)
		}
	}
	w.end()
}

// did notes what a call did, without its arguments.
func (w *drainWalk) did(call string) string {
	w.calls = append(w.calls, fmt.Sprintf("%s  %s", w.now.Format("15:04:05.000"), call))
	outcome, _, _ := strings.Cut(call, ":: ")
	return outcome
}

func (w *drainWalk) fail(format string, args ...any) { w.t.Helper(); w.t.Errorf(format, args...) }

// setTime lets time pass. What ends meanwhile cools down from its end on.
func (w *drainWalk) setTime(d time.Duration) {
	w.now = w.now.Add(d)
	if w.store.Mini == nil {
		w.store.Clock.Stop(w.now)
	} else {
		w.store.Mini.SetTime(w.now)
		w.store.Mini.FastForward(d)
	}
	w.holds = slices.DeleteFunc(w.holds, func(h *walkHold) bool {
		ends := !h.expires.IsZero() && !h.expires.After(w.now)
		if ends {
			w.giveBack(h, h.expires.Add(w.cooldown))
		}
		return ends
	})
}

func (w *drainWalk) pass() string {
	d := time.Duration(w.random.IntN(400)) * time.Millisecond
	w.setTime(d)
	return fmt.Sprint("passed:: ", d)
}

func (w *drainWalk) giveBack(h *walkHold, until time.Time) {
	for port := h.port; port < h.port+h.count; port++ {
		w.rests[port] = until
	}
}

func within(ranges []Range, port int) bool {
	return slices.ContainsFunc(ranges, func(r Range) bool { return port >= r.Start && port <= r.End })
}

// drains reports whether a port of a hold is outside of the ranges.
func (w *drainWalk) drains(h *walkHold) bool { return w.draining(h) > 0 }

func (w *drainWalk) draining(h *walkHold) (n int) {
	for port := h.port; port < h.port+h.count; port++ {
		if !within(w.ranges, port) {
			n++
		}
	}
	return n
}

func (w *drainWalk) holder(port int) *walkHold {
	for _, h := range w.holds {
		if h.has(port) {
			return h
		}
	}
	return nil
}

// isFree reports whether the service would hand out a port.
func (w *drainWalk) isFree(port int) bool {
	return within(w.ranges, port) && w.holder(port) == nil && !w.rests[port].After(w.now)
}

// compare compares what the service says with what it should be.
func (w *drainWalk) compare() {
	w.t.Helper()
	var want PortCounts
	var names []string
	for _, h := range w.holds {
		want.Draining += w.draining(h)
		if h.offered {
			want.Offered += h.count
		} else {
			want.Allocated += h.count
			names = append(names, h.name)
		}
	}
	var free []int
	for port := walkMin; port <= walkMax; port++ {
		if w.isFree(port) {
			free = append(free, port)
		} else if within(w.ranges, port) && w.holder(port) == nil {
			want.Cooling++
		}
	}
	want.Free = len(free)
	want.Total = want.Free + want.Offered + want.Allocated + want.Cooling
	if w.random.IntN(2) == 0 { // mostly nobody looks before the next call
		return
	}
	s, err := w.a.Service(w.t.Context(), DefaultPool, "web")
	if err != nil || s.Ports != want {
		w.fail("counts %+v, %v, want %+v", s.Ports, err, want)
	}
	got, err := w.a.FreePorts(w.t.Context(), DefaultPool, "web", MaxPage)
	if slices.Sort(got.Ports); err != nil || !slices.Equal(got.Ports, free) {
		w.fail("free %v, %v, want %v", got.Ports, err, free)
	}
	var held []string
	for some, err := range w.a.AllAllocations(w.t.Context(), DefaultPool, "web") {
		must(w.t, err)
		for _, a := range some {
			held = append(held, a.Name)
		}
	}
	slices.Sort(held)
	if slices.Sort(names); !slices.Equal(held, names) {
		w.fail("allocated %v, want %v", held, names)
	}
	if w.random.IntN(8) == 0 {
		must(w.t, w.a.CheckKeys(w.t.Context(), DefaultPool, false, func(i Inconsistency) { w.fail("%+v", i) }))
	}
}

// end narrows the service to one port, waits until all has ended, and looks for what is left of the others.
func (w *drainWalk) end() {
	w.ranges = []Range{{walkMin, walkMin}}
	must(w.t, w.put(w.ranges, true))
	for _, h := range slices.Clone(w.holds) {
		if !h.offered && h.expires.IsZero() {
			must(w.t, w.a.Release(w.t.Context(), Caller{}, DefaultPool, "web", h.name, Proof{}))
			w.giveBack(h, w.now.Add(w.cooldown))
			w.drop(h)
		}
	}
	w.setTime(time.Minute)
	s, err := w.a.Service(w.t.Context(), DefaultPool, "web")
	must(w.t, err)
	if want := (PortCounts{Total: 1, Free: 1}); s.Ports != want {
		w.fail("in the end: %+v", s.Ports)
	}
	must(w.t, w.a.settle(w.t.Context(), w.a.keys.Pool(DefaultPool), "web"))
	must(w.t, w.a.CheckKeys(w.t.Context(), DefaultPool, false, func(i Inconsistency) { w.fail("in the end: %+v", i) }))
	k, db, ctx := w.a.keys.Pool(DefaultPool), w.store.Admin, w.t.Context()
	if left := db.HGet(ctx, k.Service("web"), "drains").Val(); left != "" {
		w.fail("still drains: %s", left)
	}
	left := slices.Concat(db.HKeys(ctx, k.Ports("web")).Val(), db.HKeys(ctx, k.Offers("web")).Val(),
		db.ZRange(ctx, k.Free("web"), 0, -1).Val(),
		db.ZRange(ctx, k.Leases("web"), 0, -1).Val(), db.ZRange(ctx, k.Resting("web"), 0, -1).Val(),
		db.HKeys(ctx, k.Last("web")).Val(), db.HKeys(ctx, k.Labels("web")).Val())
	if slices.ContainsFunc(left, func(port string) bool { return port != fmt.Sprint(walkMin) }) {
		w.fail("left are %v", left)
	}
	must(w.t, w.a.Remove(w.t.Context(), Caller{}, DefaultPool, "web"))
}
