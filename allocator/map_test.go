package allocator

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// wholeMap joins the pages of a map.
func wholeMap(ctx context.Context, a *Allocator, pool, service string, limit int) (whole PortMap, err error) {
	for cursor := ""; ; {
		m, next, err := a.Map(ctx, pool, service, cursor, limit)
		if err != nil {
			return PortMap{}, err
		}
		if cursor == "" {
			whole = PortMap{Service: m.Service, Time: m.Time, Start: m.Start, End: m.End, Ranges: m.Ranges}
		}
		whole.add(m.Entries)
		if cursor = next; cursor == "" {
			return whole, nil
		}
	}
}

// mapOf has one entry for each hold and each port that is kept out, and joins free ports.
func (m *model) mapOf(service string, s *modelService) PortMap {
	of := PortMap{Service: service, Time: date(m.now), Start: s.start, End: s.end, Ranges: s.several()}
	for number := s.start; number <= s.end; number++ {
		e, port := MapEntry{Start: number, End: number, State: StateFree}, s.ports[number]
		switch {
		case s.holes[number]:
			continue
		case port == nil:
		case port.hold.lives(m.now):
			h := port.hold
			a := h.allocation(service)
			if e = (MapEntry{h.port, h.port + h.count - 1, StateAllocated, a.Name, a.Owner, a.Created, a.Expires, false}); h.fence == 0 {
				e.State = StateOffered
			}
			number = e.End
		case port.rests > m.now:
			e.State, e.Until = StateQuarantined, date(port.rests)
		case !port.isFree(m.now, s):
			e.State, e.Until = StateCooling, date(port.freedAt(s)+s.cooldown)
		}
		of.add([]MapEntry{e})
	}
	return of
}

// counts counts the ports of a map. It fails unless each port of the range is in one entry, in ascending order.
func (m PortMap) counts(t *testing.T) (counts PortCounts) {
	t.Helper()
	next := m.Start
	for _, e := range m.Entries {
		if e.Start != next || e.End < e.Start {
			t.Fatalf("an entry %d-%d follows port %d", e.Start, e.End, next-1)
		}
		next = e.End + 1
		of := map[PortState]*int{
			StateFree: &counts.Free, StateOffered: &counts.Offered, StateAllocated: &counts.Allocated,
			StateCooling: &counts.Cooling, StateQuarantined: &counts.Cooling,
		}[e.State]
		*of += e.End - e.Start + 1
		counts.Total += e.End - e.Start + 1
	}
	if next != m.End+1 {
		t.Fatalf("the map ends with port %d, the service with %d", next-1, m.End)
	}
	return counts
}

// states tells a map in a line: free 5000-5003 allocated 5004-5005 ann.
func (m PortMap) states() string {
	var all []string
	for _, e := range m.Entries {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %d-%d %s", e.State, e.Start, e.End, e.Name)))
	}
	return strings.Join(all, ", ")
}

func mustMap(t *testing.T, a *Allocator, service string, limit int) PortMap {
	t.Helper()
	m, err := wholeMap(t.Context(), a, DefaultPool, service, limit)
	must(t, err)
	s, err := a.Service(t.Context(), DefaultPool, service)
	must(t, err)
	if got := m.counts(t); got != s.Ports {
		t.Errorf("the map of %s counts %+v, the service %+v", service, got, s.Ports)
	}
	return m
}

// Blocks that cross what one script reads, and what a page covers, are one entry.
func TestMapOfBlocks(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		_, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: "web", Start: 2000, End: 7999, Cooldown: time.Hour})
		must(t, err)
		holder := 0
		for port := 2000; port < 3500; port += 90 {
			r := Request{Name: fmt.Sprint("n", holder), Port: new(port), Count: new(87), Lease: new(time.Hour)}
			if holder++; holder%3 == 0 {
				_, _, err = offerOne(t.Context(), a, DefaultPool, "web", r, 0)
			} else {
				_, _, err = claimOne(t.Context(), a, DefaultPool, "web", r, 0)
			}
			must(t, err)
		}
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "n1", Proof{}))
		want := mustMap(t, a, "web", MaxMapped).states()
		if n := strings.Count(want, "allocated") + strings.Count(want, "offered"); n != holder-1 {
			t.Errorf("%d holders have %d entries", holder-1, n)
		}
		for _, limit := range []int{1, 89, 512, 513} {
			if got := mustMap(t, a, "web", limit).states(); got != want {
				t.Errorf("pages of %d ports: %s, want %s", limit, got, want)
			}
		}
		if r, err := a.readMap(t.Context(), DefaultPool, "web", 5000, 100); err != nil || r.first != 8000 || len(r.free) > 0 {
			t.Errorf("a run of fresh ports is looked at: %d from %d on, error %v", len(r.free), r.first, err)
		}
		for cursor, want := range map[string]string{
			"2050": "allocated 2000-2086 n0", "2200": "offered 2180-2266 n2", "0": "allocated 2000-2086 n0", "7999": "free 7999-7999", "8000": "",
		} {
			m, _, err := a.Map(t.Context(), DefaultPool, "web", cursor, 1)
			if got := m.states(); err != nil || got != want {
				t.Errorf("from %s on: %s, error %v, want %s", cursor, got, err, want)
			}
		}
	})
}

// Between two scripts of a page anything may happen; a service that shrank ends the page.
func TestMapOfAnotherRange(t *testing.T) {
	a := newAllocator(storetest.Mini(t), long)
	mustDefine(t, a, "web", 2000, 7999)
	m, next, err := a.Map(t.Context(), DefaultPool, "web", "", 10)
	must(t, err)
	if m.states() != "free 2000-2009" || next != "2010" {
		t.Errorf("%s, next %s", m.states(), next)
	}
	mustDefine(t, a, "web", 2000, 2004)
	m, next, err = a.Map(t.Context(), DefaultPool, "web", next, 10)
	if must(t, err); len(m.Entries) > 0 || next != "" || m.End != 2004 {
		t.Errorf("%s, next %s", m.states(), next)
	}
}

// A server that ended in the middle of a change of a range left the rest of the work in the service. Ports that leave it are not on the
// map, and those that rest and join it are quarantined, as when the change is done.
func TestMapDuringChange(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		define := func(d Definition) {
			call := a.keys.Pool(DefaultPool).Call(lua.Define, d.Name, "",
				a.withEvents(Caller{}, d.Name, d.Description, fmt.Sprintf("%d-%d", d.Start, d.End), d.Cooldown.Milliseconds(), flag(true), a.opts.MaxServices, "", "", "0")...)
			for answer := any(int64(0)); answer == int64(0); { // and no settle.lua
				var err error
				answer, err = a.write(t.Context(), call)
				must(t, err)
			}
		}
		d := Definition{Name: "web", Start: 2000, End: 3999, Cooldown: time.Hour}
		define(d)
		for i := range 20 {
			_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: fmt.Sprint("n", i), Count: new(100)}, 0)
			must(t, err)
		}
		for i := 2; i < 20; i++ {
			must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "n"+strconv.Itoa(i), Proof{}))
		}
		change := func(end, quarantined int) {
			t.Helper()
			d.End = end
			define(d)
			if store.Admin.HGet(t.Context(), store.Prefix+":{default}:service:web", "changing").Val() == "" {
				t.Fatal("the change was done at once")
			}
			if m := mustMap(t, a, "web", MaxMapped); m.End != end || m.counts(t).Cooling != quarantined {
				t.Errorf("up to %d: %s", end, m.states())
			}
		}
		change(2999, 800)
		change(3999, 1800)
	})
}
