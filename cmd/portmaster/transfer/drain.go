package transfer

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"portmaster/client"
)

// drains are the allocations of a service that are outside of its ranges, where they drain. To claim them, the service gets ranges that
// have them, and is narrowed again.
type drains struct {
	key     serviceKey
	service Service
	lines   []Line
	wide    []client.Range
}

// maxRanges is how many ranges a service may have.
const maxRanges = 32

// addDraining notes that the allocation of a line is to drain.
func (p *Plan) addDraining(key serviceKey, line Line) {
	i := slices.IndexFunc(p.drains, func(d *drains) bool { return d.key == key })
	if i < 0 {
		i = len(p.drains)
		p.drains = append(p.drains, &drains{key: key})
	}
	p.drains[i].lines = append(p.drains[i].lines, line)
}

// planDrains finds the ranges in which allocations that drain can be claimed. If there are too many, none of them is taken over.
func (p *Plan) planDrains(services map[serviceKey]*planned) {
	p.drains = slices.DeleteFunc(p.drains, func(d *drains) bool {
		d.service = *services[d.key].line.Service
		d.wide = widened(d.service, d.lines, func(first, last int) bool {
			return otherWith(services, d.key, first, last) == ""
		})
		if len(d.wide) <= maxRanges {
			return false
		}
		for _, line := range d.lines {
			p.leave(line, "its ports drain, and the service would need %d ranges to claim all that do; it may have %d", len(d.wide), maxRanges)
		}
		return true
	})
}

// widened returns the ranges of a service with the ports of lines. If they are too many, it closes gaps, the smallest first, but for the
// holes of the service and for what another service has.
func widened(s Service, lines []Line, isFree func(first, last int) bool) []client.Range {
	all := slices.Clone(s.ranges())
	for _, line := range lines {
		all = append(all, client.Range{Start: line.Allocation.Port, End: line.Allocation.Port + line.Allocation.Count - 1})
	}
	all = joined(all)
	type gap struct{ first, last int }
	var gaps []gap
	for i := 1; i < len(all); i++ {
		g := gap{all[i-1].End + 1, all[i].Start - 1}
		isHole := s.hasPort(g.first-1) && s.hasPort(g.last+1)
		if !isHole && isFree(g.first, g.last) {
			gaps = append(gaps, g)
		}
	}
	slices.SortStableFunc(gaps, func(a, b gap) int { return cmp.Compare(a.last-a.first, b.last-b.first) })
	for _, g := range gaps[:min(len(gaps), max(0, len(all)-maxRanges))] {
		all = append(all, client.Range{Start: g.first, End: g.last})
	}
	return joined(all)
}

// joined returns the same ports as ranges in their order, none of which overlaps or touches another.
func joined(ranges []client.Range) (all []client.Range) {
	slices.SortFunc(ranges, func(a, b client.Range) int { return cmp.Compare(a.Start, b.Start) })
	for _, r := range ranges {
		if last := len(all) - 1; last >= 0 && r.Start <= all[last].End+1 {
			all[last].End = max(all[last].End, r.End)
		} else {
			all = append(all, r)
		}
	}
	return all
}

// hasPort reports whether a port is in the ranges of the service.
func (s Service) hasPort(port int) bool {
	return slices.ContainsFunc(s.ranges(), func(r client.Range) bool { return port >= r.Start && port <= r.End })
}

// otherWith returns the name of another service of the pool that has one of the ports first-last, in its ranges or outside; "" if none
// has.
func otherWith(services map[serviceKey]*planned, key serviceKey, first, last int) string {
	for other, s := range services {
		if other.pool != key.pool || other.service == key.service {
			continue
		}
		for _, r := range s.line.Service.ranges() {
			if first <= r.End && last >= r.Start {
				return other.service
			}
		}
		for port := first; port <= last; port++ {
			if _, has := s.ports[port]; has {
				return other.service
			}
		}
	}
	return ""
}

// claimDraining claims what drains: while it does so, the service has the wide ranges, and gives any lease. A range that cannot be
// had is a fault of each of the allocations.
func (p *Plan) claimDraining(ctx context.Context, c *client.Client, d *drains, claim func([]Line) error) error {
	wide := d.service.definition()
	wide.Start, wide.End, wide.Ranges, wide.Drain = 0, 0, d.wide, true
	wide.DefaultLease, wide.MaxLease = 0, 0
	_, err := c.Pool(d.key.pool).Define(ctx, wide)
	if errors.Is(err, client.ErrRangeOverlap) || errors.Is(err, client.ErrRangeInUse) {
		refusal, _ := errors.AsType[*client.Error](err)
		for _, line := range d.lines {
			p.leave(line, "%s", refusal.Detail)
		}
		return nil
	}
	if err == nil {
		err = claim(d.lines)
	}
	if ctx.Err() != nil {
		return err
	}
	_, narrowErr := c.Pool(d.key.pool).Define(ctx, d.service.definition())
	return errors.Join(err, narrowErr)
}
