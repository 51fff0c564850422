package allocator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// Which events the history of a service must have got after each call.

// modelHistory is what the history of a service should say. It outlives the service.
type modelHistory struct {
	events []string        // of the last call, but for leases that ran out, in their order
	leases map[int64]*hold // fence -> a lease that has neither been released nor said to have ended
}

func (p *modelPool) history(service string) *modelHistory {
	if p.histories[service] == nil {
		p.histories[service] = &modelHistory{leases: map[int64]*hold{}}
	}
	return p.histories[service]
}

// add adds an event about a hold.
func (h *modelHistory) add(event string, c request, of *hold) {
	h.events = append(h.events, of.allocation(c.service).event(event, c.caller.RequestID))
	if delete(h.leases, of.fence); of.expires > 0 && event != "released" {
		h.leases[of.fence] = of
	}
}

// addInUse adds that an offer was rejected, or an allocation released, as in use.
func (h *modelHistory) addInUse(c request, of *hold) {
	line := Allocation{Name: of.name, Port: of.port, Count: of.count, Owner: of.owner}.event("in_use", c.caller.RequestID)
	h.events = append(h.events, strings.Replace(line, " fence=0", "", 1))
}

// addRange adds that the service was defined or changed.
func (h *modelHistory) addRange(event string, c request) {
	var s modelService
	s.setRanges(c.portsOf())
	line := fmt.Sprintf("%s start=%d end=%d", event, s.start, s.end)
	if s.several() != nil {
		line += " ranges=" + textOf(s.several())
	}
	h.events = append(h.events, strings.TrimSuffix(line+" request="+c.caller.RequestID, " request="))
}

// readEvents asks for the events that the services of a pool have got since the last call; what is returned gives them.
func (r *run) readEvents(t *rapid.T, p redis.Pipeliner, pool string) func() map[string][]string {
	read := map[string]*redis.Cmd{}
	for _, service := range modelServices {
		key := r.allocators[long].keys.Pool(pool).Events(service)
		since := "-"
		if last := r.lastEvents[key]; last != "" {
			since = "(" + last
		}
		read[key] = p.Do(t.Context(), "XRANGE", key, since, "+")
	}
	return func() map[string][]string {
		all := map[string][]string{}
		for _, service := range modelServices {
			key := r.allocators[long].keys.Pool(pool).Events(service)
			entries, err := read[key].Slice()
			if err != nil {
				t.Fatal(err)
			}
			var last string
			if all[service], last = eventLines(t, entries); last != "" {
				r.lastEvents[key] = last
			}
		}
		return all
	}
}

// compareEvents holds what a call has added to the histories of its pool against what the model says. When a script comes by a lease that
// ran out is its own affair, but it says so once, and not before it ends, nor after its record is gone.
func (r *run) compareEvents(t *rapid.T, c request, state *state) {
	p := r.model.pool(c.pool)
	for service, got := range state.events {
		h := p.history(service)
		var others []string
		for _, line := range got {
			if !strings.HasPrefix(line, "expired ") {
				others = append(others, line)
				continue
			}
			said := slices.ContainsFunc(slices.Collect(maps.Values(h.leases)), func(of *hold) bool {
				if of.lives(r.model.now) || of.allocation(service).event("expired", "") != line {
					return false
				}
				delete(h.leases, of.fence)
				return true
			})
			if !said {
				r.differ(t, "%v: %s/%s says %s", c, c.pool, service, line)
			}
			r.seen["a lease is said to have ended"]++
		}
		if !slices.Equal(others, h.events) {
			r.differ(t, "%v: the events of %s/%s are\n%s\nwant\n%s", c, c.pool, service, strings.Join(others, "\n"), strings.Join(h.events, "\n"))
		}
		for _, line := range others {
			event, _, _ := strings.Cut(line, " ")
			r.seen["event "+event]++
		}
		h.events = nil
		for fence, of := range h.leases {
			if !state.fences[fence] {
				r.differ(t, "%v: the record of %v is gone, and no event says that it ended", c, of)
			}
		}
	}
}
