package allocator

import (
	"context"
	"errors"
	"iter"
	"strconv"

	"portmaster/allocator/executor"
)

// AllAllocations walks the allocations of a service by port, in pages of at most MaxPage, of which only one is in memory. What is
// allocated from the beginning of the walk to its end is in a page. An error, which is one of Allocations, ends the walk.
func (a *Allocator) AllAllocations(ctx context.Context, pool, service string) iter.Seq2[[]Allocation, error] {
	return func(yield func([]Allocation, error) bool) {
		for cursor := ""; ; {
			page, next, err := a.Allocations(ctx, pool, service, Filter{}, cursor, MaxPage)
			if !yield(page, err) || err != nil || next == "" {
				return
			}
			cursor = next
		}
	}
}

// AllPoolAllocations walks the allocations of the services of a pool for which listed returns true, as AllAllocations does. The ranges
// of services never overlap, so there are at most as many as ports. An allocation whose service moved to other ports meanwhile
// may be missing or come twice.
//
// Most services have few ports. Their ports are read for many services together, whether or not they were ever handed out.
func (a *Allocator) AllPoolAllocations(ctx context.Context, pool string, listed func(service string) bool) iter.Seq2[[]Allocation, error] {
	return func(yield func([]Allocation, error) bool) {
		for cursor := ""; ; {
			services, next, err := a.Services(ctx, pool, cursor, MaxPage)
			if err != nil {
				yield(nil, err)
				return
			}
			var small []Service
			ports := 0
			for _, s := range services {
				if s.Ports.Allocated == 0 || !listed(s.Name) {
					continue
				}
				isSmall := s.Ports.Total <= portsPerCommand && s.draining == nil
				if !isSmall || ports+s.Ports.Total > MaxPage {
					if !a.yieldSmall(ctx, pool, small, yield) {
						return
					}
					small, ports = nil, 0
				}
				if isSmall {
					small, ports = append(small, s), ports+s.Ports.Total
				} else if !a.yieldLarge(ctx, pool, s.Name, yield) {
					return
				}
			}
			if !a.yieldSmall(ctx, pool, small, yield) || next == "" {
				return
			}
			cursor = next
		}
	}
}

// yieldLarge yields the allocations of a service, and reports whether the walk goes on. A service that was removed has none.
func (a *Allocator) yieldLarge(ctx context.Context, pool, service string, yield func([]Allocation, error) bool) bool {
	for page, err := range a.AllAllocations(ctx, pool, service) {
		if errors.Is(err, ErrServiceNotFound) {
			return true
		}
		if !yield(page, err) || err != nil {
			return false
		}
	}
	return true
}

// yieldSmall yields the allocations of services that have few ports together, and reports whether the walk goes on.
func (a *Allocator) yieldSmall(ctx context.Context, pool string, services []Service, yield func([]Allocation, error) bool) bool {
	if len(services) == 0 {
		return true
	}
	hashes := make([]executor.HashFields, len(services))
	for i, s := range services {
		hashes[i].Key = a.keys.Pool(pool).Ports(s.Name)
		for port := s.Start; port <= s.End; port++ {
			hashes[i].Fields = append(hashes[i].Fields, strconv.Itoa(port))
		}
	}
	answers, err := a.executor.EachFields(ctx, hashes)
	if err != nil {
		yield(nil, translate(err))
		return false
	}
	var page []Allocation
	for i, s := range services {
		some, err := a.liveOf(ctx, pool, s, answers[i])
		if err != nil {
			yield(nil, err)
			return false
		}
		page = append(page, some...)
	}
	return yield(page, nil)
}

// liveOf returns the allocations among what the ports of a whole service have.
func (a *Allocator) liveOf(ctx context.Context, pool string, s Service, answers []any) (live []Allocation, err error) {
	ports, records := make([]int, len(answers)), make([]record, len(answers))
	for i, found := range answers {
		ports[i], records[i] = s.Start+i, recordIn(found)
	}
	if _, err := a.addLabels(ctx, a.keys.Pool(pool).Labels(s.Name), ports, records); err != nil {
		return nil, err
	}
	for _, r := range records {
		if r == "" {
			continue
		}
		allocation, isLive, err := allocationOf(s, r)
		if err != nil {
			return nil, err
		}
		if isLive {
			live = append(live, allocation)
		}
	}
	return live, nil
}
