//go:build !faults

package systemtest

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkLinearizable checks the history of each port, of each name, and of each secret.
func (f *fight) checkLinearizable() {
	f.t.Helper()
	h := histories{of: map[string][]porcupine.Operation{}, made: map[int64]event{}, ended: map[int64]bool{}, ports: map[string][]int{}}
	for _, e := range f.history {
		if e.code != "201" || e.fence == 0 {
			continue
		}
		if h.made[e.fence].fence != 0 {
			f.t.Errorf("fence %d was given twice", e.fence)
		}
		h.made[e.fence] = e
		h.ports[e.secret] = append(h.ports[e.secret], e.ports()...)
	}
	markLines(f.history)
	for _, e := range f.history {
		h.add(e)
	}

	began := time.Now()
	longest, wrong := 0, 0
	for of, history := range h.of {
		longest = max(longest, len(history))
		result := porcupine.CheckOperationsTimeout(modelOf(of), history, 20*time.Second)
		if result == porcupine.Ok {
			continue
		}
		if wrong++; wrong <= 3 {
			f.t.Errorf("the %d calls about %s are not linearizable: %s%s", len(history), of, result, stuck(of, history))
		}
	}
	if wrong > 3 {
		f.t.Errorf("%d histories are not linearizable", wrong)
	}
	f.t.Logf("%d histories of up to %d calls were checked in %s", len(h.of), longest, time.Since(began))
	f.checkLeasesEnded(h)
}

// stuck tells where the longest order ends in which answers are right: what came last in it, and what first cannot follow.
func stuck(of string, history []porcupine.Operation) (text string) {
	_, info := porcupine.CheckOperationsVerbose(modelOf(of), history, 5*time.Second)
	var order []porcupine.Operation
	for _, partial := range slices.Concat(info.PartialLinearizationsOperations()...) {
		if len(partial) > len(order) {
			order = partial
		}
	}
	done := map[any]bool{}
	for _, o := range order {
		done[o.Input] = true
	}
	for _, o := range order[max(0, len(order)-5):] {
		text += fmt.Sprintf("\n%+v", o.Input)
	}
	rest := slices.DeleteFunc(slices.Clone(history), func(o porcupine.Operation) bool { return done[o.Input] })
	slices.SortFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for _, o := range rest[:min(3, len(rest))] {
		text += fmt.Sprintf("\ncannot follow: %+v", o.Input)
	}
	return text
}

// checkLeasesEnded finds whether enough leases ran out: those that nobody can have released.
func (f *fight) checkLeasesEnded(h histories) {
	leased, alone := 0, 0
	for fence, a := range h.made {
		if a.expires != 0 {
			leased++
			if !h.ended[fence] {
				alone++
			}
		}
	}
	f.t.Logf("%d of %d allocations were leased, of which %d ended by themselves", leased, len(h.made), alone)
	if alone < 5 {
		f.t.Errorf("only %d leases ended by themselves", alone)
	}
}

// markLines marks the calls that may have met one that waits in line.
func markLines(history []event) {
	var waiting []event
	for _, e := range history {
		if e.inLine {
			waiting = append(waiting, e)
		}
	}
	sort.Slice(waiting, func(i, j int) bool { return waiting[i].call < waiting[j].call })
	for i, e := range history {
		if e.code != "PORT_TAKEN" {
			continue
		}
		later := sort.Search(len(waiting), func(j int) bool { return waiting[j].call >= e.ret })
		history[i].inLine = slices.ContainsFunc(waiting[:later], func(w event) bool { return w.ret > e.call })
	}
}

// histories are what happened to each port, to each name and to each secret.
type histories struct {
	of    map[string][]porcupine.Operation
	made  map[int64]event  // the allocations by fence
	ended map[int64]bool   // those that may have been released
	ports map[string][]int // those that a secret was given
}

func (h *histories) record(of string, e event) {
	h.of[of] = append(h.of[of], porcupine.Operation{ClientId: e.client, Input: e, Call: e.call, Return: e.ret})
}

func (h *histories) name(name string, e event) { h.record("name "+name, e) }
func (h *histories) port(port int, e event)    { h.record(fmt.Sprintf("port %d", port), e) }
func (h *histories) eachPort(ports []int, e event) {
	for _, port := range ports {
		h.port(port, e)
	}
}

func (h *histories) secret(secret string, e event) { h.record("secret "+secret, e) }

// add adds a call to each history that it is part of.
func (h *histories) add(e event) {
	switch {
	case e.act == "release":
		h.addRelease(e)
	case e.act == "release own":
		h.addReleaseOwn(e)
	case e.act == "renew":
		if e.byPort || e.code == "200" {
			h.eachPort(e.ports(), e)
		}
		if !e.byPort || e.code == "200" {
			h.name(e.name, e)
		}
		if !e.foreign {
			h.secret(e.secret, e)
		}
	case e.name != "":
		named := e
		if e.code == "PORT_TAKEN" {
			named.code = "EXHAUSTED" // of the name it says the same: nothing kept it from a port
		}
		h.name(e.name, named)
		if e.secret != "" {
			h.secret(e.secret, e)
		}
		if e.port != 0 && !slices.Contains([]string{"NAME_TAKEN", "EXHAUSTED", "OFFER_ACCEPTED", "INVALID"}, e.code) {
			h.eachPort(e.ports(), e)
		}
	}
}

// ofName is a release for the name, which does not rest.
func (e event) ofName() event {
	e.inUse = false
	return e
}

// addRelease adds a release that was told the port or the name. Which name, or port, came free with it follows from the
// fence; without one, from the allocations that it can have been.
func (h *histories) addRelease(e event) {
	if e.byPort {
		h.port(e.port, e)
	} else {
		h.name(e.name, e.ofName())
	}
	if e.code != "204" {
		return
	}
	candidates := []event{h.made[e.condition]}
	if e.condition == 0 {
		candidates = released(e, h.made)
	}
	for _, a := range candidates {
		h.ended[a.fence] = true
		other := e
		other.condition = a.fence
		if len(candidates) > 1 {
			other.act, other.code = "maybe", "released"
		}
		ports := a.ports()
		if e.byPort {
			h.name(a.name, other.ofName())
			ports = slices.DeleteFunc(ports, func(port int) bool { return port == e.port })
		}
		h.eachPort(ports, other)
		h.secret(a.secret, other)
	}
}

// addReleaseOwn adds a release by secret. Where it was told the name, the port that came free is one that the secret had.
func (h *histories) addReleaseOwn(e event) {
	h.secret(e.secret, e)
	if e.byPort {
		h.port(e.port, e)
	} else {
		h.name(e.name, e)
	}
	if e.code != "204" {
		return
	}
	for fence, a := range h.made {
		if a.secret == e.secret {
			h.ended[fence] = true
			if e.byPort {
				h.name(a.name, e)
			}
		}
	}
	ports := slices.Clone(h.ports[e.secret])
	slices.Sort(ports)
	ports = slices.Compact(ports)
	if e.byPort { // that one is there already
		ports = slices.DeleteFunc(ports, func(port int) bool { return port == e.port })
	}
	h.eachPort(ports, e)
}

// released returns the allocations that an unconditional release can have ended: those of its name, or its port, that may
// have been there, and that no other had replaced by then.
func released(e event, made map[int64]event) (candidates []event) {
	var same []event
	for _, a := range made {
		if (e.byPort && slices.Contains(a.ports(), e.port) || !e.byPort && a.name == e.name) && a.call <= e.ret {
			same = append(same, a)
		}
	}
	for _, a := range same {
		if !slices.ContainsFunc(same, func(later event) bool { return later.call > a.ret && later.ret < e.call }) {
			candidates = append(candidates, a)
		}
	}
	return candidates
}
