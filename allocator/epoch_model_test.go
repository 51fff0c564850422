package allocator

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"portmaster/allocator/storetest"
)

// TestEpochModel walks at random over servers that claim, release, look, start and leave while their Redis is copied, restored,
// emptied and recovered and its clock steps, and holds what it sees against what the README promises:
//
//   - No two allocations have the same fence. (Fences are the time. So if the clock steps back, this takes a second before and two
//     after, in which each server looks, and that those who handed out ports are still there.)
//   - A server hands out nothing if something is missing that it acknowledged since the state was recovered the last time, unless a
//     server that knew nothing of it was faster.
//   - If nothing was restored or emptied since then, nothing is lost.
//   - When it is recovered, all servers hand out ports again.
func TestEpochModel(t *testing.T) {
	store := storetest.Mini(t)
	rapid.Check(t, func(rt *rapid.T) {
		restore(t, store, nil)
		w := &epochWalk{T: rt, t: t, store: store, fences: map[int64]string{}}
		w.most = time.Duration(rapid.SampledFrom([]int{0, 0, 10}).Draw(rt, "PORTMASTER_MAX_ROLLBACK")) * time.Second
		w.start(rt)
		w.start(rt)
		mustDefine(t, w.servers[0], "web", 2000, 9999)
		rt.Repeat(map[string]func(*rapid.T){
			"claim": w.claim, "claim again": w.claim, "release": w.release, "look": w.look, "look again": w.look, "start": w.start,
			"end": w.end, "copy": w.copy, "restore": w.restore, "empty": w.empty, "recover": w.recover, "clock": w.clock,
		})
	})
}

type epochWalk struct {
	*rapid.T
	t       *testing.T
	store   storetest.Store
	servers []*Allocator
	acked   map[*Allocator]map[string]Allocation // since the last recovery, by name
	fences  map[int64]string                     // of all that was ever acknowledged: whose
	copies  []map[string]any
	most    time.Duration // by how much a state may be older that is built upon
	stepped bool          // the clock has, back
	touched bool          // the state was restored or emptied since the last recovery
	names   int
}

func (w *epochWalk) server(rt *rapid.T) *Allocator {
	return w.servers[rapid.IntRange(0, len(w.servers)-1).Draw(rt, "server")]
}

func (w *epochWalk) start(*rapid.T) {
	if len(w.servers) == 4 {
		return
	}
	a := newAllocator(w.store, long)
	a.epoch.Options.MaxRollback = w.most
	if w.acked == nil {
		w.acked = map[*Allocator]map[string]Allocation{}
	}
	w.servers, w.acked[a] = append(w.servers, a), map[string]Allocation{}
}

func (w *epochWalk) end(rt *rapid.T) {
	if len(w.servers) > 1 && !w.stepped {
		i := rapid.IntRange(0, len(w.servers)-1).Draw(rt, "which")
		delete(w.acked, w.servers[i])
		w.servers = append(w.servers[:i:i], w.servers[i+1:]...)
	}
}

// missing is an allocation that a server acknowledged and that Redis does not have.
func (w *epochWalk) missing(a *Allocator) (string, bool) {
	ports, err := w.store.Admin.HGetAll(w.t.Context(), a.keys.Pool(DefaultPool).Ports("web")).Result()
	must(w.t, err)
	there := map[int64]bool{}
	for _, r := range ports {
		fence, _ := record(r).number(`"fence":`)
		there[fence] = true
	}
	for name, allocation := range w.acked[a] {
		if !there[allocation.Fence] {
			return name, true
		}
	}
	return "", false
}

func (w *epochWalk) claim(rt *rapid.T) {
	w.advance(time.Millisecond)
	a := w.server(rt)
	gone, isMissing := w.missing(a)
	w.names++
	name := fmt.Sprint("n", w.names)
	got, _, err := claimOne(w.t.Context(), a, DefaultPool, "web", Request{Name: name}, 0)
	switch {
	case err == nil && isMissing && w.most == 0:
		rt.Fatalf("port %d is handed out although %s is missing, which this server acknowledged", got.Port, gone)
	case err == nil:
		if other, given := w.fences[got.Fence]; given {
			rt.Fatalf("%s and %s have fence %d", name, other, got.Fence)
		}
		w.fences[got.Fence] = name
		if w.touched {
			for _, other := range w.servers {
				clear(w.acked[other])
			}
		}
		w.acked[a][name] = got
	case !w.touched && !errors.Is(err, ErrExhausted):
		rt.Fatalf("a claim fails although nothing was done to the state: %v", err)
	case w.touched && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrServiceNotFound):
		rt.Fatalf("a claim fails otherwise: %v", err)
	}
}

func (w *epochWalk) release(rt *rapid.T) {
	a := w.server(rt)
	for name, allocation := range w.acked[a] {
		err := a.Release(w.t.Context(), Caller{}, DefaultPool, "web", name, Proof{Fences: []int64{allocation.Fence}})
		if err == nil {
			delete(w.acked[a], name)
		} else if errors.Is(err, ErrPortNotFound) && w.isLost(a) || !w.touched {
			rt.Fatalf("a release of %s fails: %v", name, err)
		}
		return
	}
}

func (w *epochWalk) isLost(a *Allocator) bool { return a.epoch.Fault() != nil }

func (w *epochWalk) look(rt *rapid.T) {
	w.advance(time.Duration(rapid.IntRange(0, 2500).Draw(rt, "ms")) * time.Millisecond)
	findings, err := w.server(rt).Check(w.t.Context())
	must(w.t, err)
	if len(findings) > 0 && !w.touched {
		rt.Fatalf("it finds %v although nothing was done to the state", findings)
	}
}

func (w *epochWalk) advance(d time.Duration) {
	w.store.Mini.SetTime(storeTime(w.t, w.store).Add(d))
}

// clock lets Redis' clock step, back as well.
func (w *epochWalk) clock(rt *rapid.T) {
	step := time.Duration(rapid.IntRange(-100_000_000, 100_000_000).Draw(rt, "microseconds")) * time.Microsecond
	w.allLook()
	w.stepped = w.stepped || step < 0
	w.advance(step)
}

func (w *epochWalk) copy(*rapid.T) { w.copies = append(w.copies, snapshot(w.t, w.store)) }

func (w *epochWalk) restore(rt *rapid.T) {
	if len(w.copies) == 0 {
		return
	}
	restore(w.t, w.store, w.copies[rapid.IntRange(0, len(w.copies)-1).Draw(rt, "copy")])
	w.afterwards()
}

// afterwards is what follows when the state was changed.
func (w *epochWalk) afterwards() {
	w.touched = true
	if w.stepped { // twice, so that each hears what the others noticed
		w.allLook()
		w.allLook()
	}
}

func (w *epochWalk) allLook() {
	for _, a := range w.servers {
		_, _ = a.Check(w.t.Context())
	}
}

func (w *epochWalk) empty(*rapid.T) {
	restore(w.t, w.store, nil)
	w.afterwards()
}

// recover lets all servers look, so that they report, and recovers the state.
func (w *epochWalk) recover(*rapid.T) {
	w.allLook()
	if _, err := w.servers[0].Recover(w.t.Context()); err != nil {
		w.Fatal(err)
	}
	for _, a := range w.servers {
		findings, err := a.Check(w.t.Context())
		if must(w.t, err); len(findings) > 0 {
			w.Fatalf("it finds %v although the state was recovered", findings)
		}
		clear(w.acked[a])
	}
	_, _, err := w.servers[0].Define(w.t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 9999})
	if err != nil && !errors.Is(err, ErrServiceExists) {
		w.Fatal(err)
	}
	w.touched = false
}
