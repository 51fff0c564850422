package allocator

import "slices"

// Rows of ports that begin at a multiple, in the model.

// align is what the first port must be a multiple of.
func (w want) align() int { return max(valueOf(w.Align), 1) }

// surely is how many ports must be in a row so that what is wanted is among them, wherever they begin.
func (w want) surely() int { return row{w.count(), w.align()}.surely() }

// multiple is the first multiple from a port on.
func multiple(port, align int) int { return (port + align - 1) / align * align }

func isAligned(rows []row) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return r.align > 1 })
}

// starts are the ports at which what is wanted may begin.
func (s *modelService) starts(w want) (all []int) {
	for number := s.start; number <= s.end; number++ {
		if number%w.align() == 0 && s.hasAll(number, w.count()) {
			all = append(all, number)
		}
	}
	return all
}

// takeAligned takes the first ports that fit, where no run has some for sure.
func (p *picker) takeAligned(count, align int) int {
	for _, run := range p.runs() {
		if first := multiple(run.from, align); first+count-1 <= run.to {
			p.m.note("took a multiple of a short run")
			p.take(first, count)
			return first
		}
	}
	p.m.note("no run has a multiple")
	return 0
}
