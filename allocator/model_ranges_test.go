package allocator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// Which ports a service of the model has: those from its start to its end, without its holes.

// portsOf are the ports of a call that defines a service, in their order.
func (c request) portsOf() (ports []int) {
	for number := c.start; number <= c.end; number++ {
		if !slices.ContainsFunc(c.exclude, func(r Range) bool { return number >= r.Start && number <= r.End }) {
			ports = append(ports, number)
		}
	}
	return ports
}

// setRanges sets the ports of a service.
func (s *modelService) setRanges(ports []int) {
	s.start, s.end, s.holes = ports[0], ports[len(ports)-1], map[int]bool{}
	for number := s.start; number <= s.end; number++ {
		s.holes[number] = !slices.Contains(ports, number)
	}
}

func (s *modelService) has(number int) bool {
	return number >= s.start && number <= s.end && !s.holes[number]
}

// spans are the ranges of a service.
func (s *modelService) spans() (ranges []Range) {
	for number := s.start; number <= s.end; number++ {
		if last := len(ranges) - 1; s.holes[number] {
			continue
		} else if last >= 0 && ranges[last].End == number-1 {
			ranges[last].End = number
		} else {
			ranges = append(ranges, Range{number, number})
		}
	}
	return ranges
}

// several are the ranges as an answer has them: none if there is one.
func (s *modelService) several() []Range {
	if ranges := s.spans(); len(ranges) > 1 {
		return ranges
	}
	return nil
}

// size is how many ports a service has, and longest how many of them are in a row.
func (s *modelService) size() (size, longest int) {
	for _, r := range s.spans() {
		size, longest = size+r.End-r.Start+1, max(longest, r.End-r.Start+1)
	}
	return size, longest
}

// hasAll reports whether a service has a port and those behind it.
func (s *modelService) hasAll(port, count int) bool {
	for number := port; number < port+count; number++ {
		if !s.has(number) {
			return false
		}
	}
	return true
}

// change draws a change of a part of a definition.
func (r *run) change(t *rapid.T) {
	c := r.target(t, "change")
	c.part = rapid.SampledFrom([]string{"description", "cooldown", "ranges", "ranges", "exclude", "exclude", "pick", "leases"}).Draw(t, "part")
	c.description, c.cooldown = rapid.SampledFrom([]string{"", "changed"}).Draw(t, "description"), r.cooldown(t)
	c.pick = drawPick(t)
	c.drawLeases(t)
	c.start, c.end = modelMin, modelMax
	if s := r.model.pool(c.pool).services[c.service]; s != nil {
		c.start = s.start + rapid.IntRange(-2, 2).Draw(t, "start by")
		c.end = max(c.start, s.end+rapid.IntRange(-2, 4).Draw(t, "end by"))
	}
	if c.exclude = excluded(t, c.start, c.end); c.part == "exclude" && rapid.IntRange(0, 9).Draw(t, "all") == 0 {
		c.exclude = []Range{{modelMin - 10, modelMax + 10}}
	}
	r.step(t, c)
}

// applyTo changes a part of a definition.
func (c request) applyTo(d *Definition) error {
	switch c.part {
	case "description":
		d.Description = c.description
	case "cooldown":
		d.Cooldown = c.cooldown
	case "pick":
		d.Pick = c.pick
	case "leases":
		d.DefaultLease, d.MaxLease = optional(c.byDefault), optional(c.longest)
	case "exclude":
		d.Exclude = c.exclude
	case "ranges":
		var s modelService
		s.setRanges(c.portsOf())
		d.Start, d.End, d.Ranges = 0, 0, s.spans()
	}
	return nil
}

// change defines a service as it is, but for a part.
func (m *model) change(p *modelPool, s *modelService, c request) answer {
	changed := c
	if c.part != "description" {
		changed.description = s.description
	}
	if c.part != "cooldown" {
		changed.cooldown = time.Duration(s.cooldown) * time.Millisecond
	}
	if c.part != "pick" {
		changed.pick = s.pick
	}
	if c.part != "leases" {
		changed.byDefault, changed.longest = time.Duration(s.leases.byDefault)*time.Millisecond, time.Duration(s.leases.longest)*time.Millisecond
	}
	if c.part != "ranges" {
		changed.start, changed.end, changed.exclude = s.start, s.end, nil
		for number := range s.holes {
			if s.holes[number] {
				changed.exclude = append(changed.exclude, Range{number, number})
			}
		}
	}
	if c.part == "exclude" {
		changed.exclude = append(changed.exclude, c.exclude...)
	}
	if len(changed.portsOf()) == 0 {
		return answer{Code: CodeInvalid, Fields: []string{"exclude"}}
	}
	return m.define(p, changed)
}

// excluded draws what a range is without: mostly nothing.
func excluded(t *rapid.T, start, end int) (ranges []Range) {
	for range rapid.SampledFrom([]int{0, 0, 1, 1, 2}).Draw(t, "holes") {
		first := rapid.IntRange(start, end).Draw(t, "hole")
		r := Range{first, min(first+rapid.IntRange(0, 1).Draw(t, "hole, more"), end)}
		if c := (request{start: start, end: end, exclude: append(ranges, r)}); len(c.portsOf()) > 0 {
			ranges = c.exclude
		}
	}
	return ranges
}

// rangesInPool are the ranges of a service as its pool has them: in services and ends if it has one, in ranges if it has several.
func rangesInPool(service string, pool [3]*redis.ZSliceCmd) string {
	var parts []string
	if end, is := scores(pool[1])[service]; is {
		parts = append(parts, fmt.Sprintf("%d-%d", scores(pool[0])[service], end))
	}
	for _, z := range pool[2].Val() {
		if of, text, _ := strings.Cut(z.Member.(string), " "); of == service {
			parts = append(parts, text)
			if !strings.HasPrefix(text, fmt.Sprintf("%d-", ms(z.Score))) {
				parts = append(parts, fmt.Sprintf("at %v", z.Score))
			}
		}
	}
	return strings.Join(parts, ",")
}
