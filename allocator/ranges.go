package allocator

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxRanges is how many ranges a service may have.
const MaxRanges = 32

// maxExcluded is how many ports and ranges a definition may exclude.
const maxExcluded = 1000

// Range is a range of ports, both ends included.
type Range struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

// size returns how many ports the range has.
func (r Range) size() int { return r.End - r.Start + 1 }

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.Start, r.End) }

// textOf returns ranges as scripts read them: "5000-5099,7000-7099".
func textOf(ranges []Range) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = r.String()
	}
	return strings.Join(parts, ",")
}

// parseRanges reads what textOf writes.
func parseRanges(text string) (ranges []Range, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, _ := strings.Cut(part, "-")
		start, startErr := strconv.Atoi(first)
		end, endErr := strconv.Atoi(last)
		if startErr != nil || endErr != nil {
			return nil, false
		}
		ranges = append(ranges, Range{start, end})
	}
	return ranges, true
}

// sorted returns ranges in their order.
func sorted(ranges []Range) []Range {
	return slices.SortedFunc(slices.Values(ranges), func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
}

// joined sorts ranges, and joins those that touch or overlap.
func joined(ranges []Range) (all []Range) {
	for _, r := range sorted(ranges) {
		if last := len(all) - 1; last >= 0 && r.Start <= all[last].End+1 {
			all[last].End = max(all[last].End, r.End)
		} else {
			all = append(all, r)
		}
	}
	return all
}

// without returns what ranges have, and others have not. Both are as joined returns them.
func without(ranges, others []Range) (left []Range) {
	for _, r := range ranges {
		for _, o := range others {
			if o.End < r.Start || o.Start > r.End {
				continue
			}
			if o.Start > r.Start {
				left = append(left, Range{r.Start, o.Start - 1})
			}
			r.Start = o.End + 1
		}
		if r.Start <= r.End {
			left = append(left, r)
		}
	}
	return left
}

// sizeOf returns how many ports some ranges have.
func sizeOf(ranges []Range) (size int) {
	for _, r := range ranges {
		size += r.size()
	}
	return size
}

// rangesOf returns the ranges of a definition: in their order, joined if they touch, without what is excluded. If they are not allowed,
// it says so: low and high bound the ports of the server.
func (f *faults) rangesOf(d Definition, low, high int) []Range {
	ranges, known := d.Ranges, len(*f)
	switch {
	case ranges == nil:
		f.portRange(d.Start, d.End, low, high)
		ranges = []Range{{d.Start, d.End}}
	case d.Start != 0 || d.End != 0:
		f.add("ranges", "cannot be combined with start and end")
	case len(ranges) < 1 || len(ranges) > MaxRanges:
		f.add("ranges", "must list 1 to %d ranges", MaxRanges)
	default:
		f.apartRanges(ranges, low, high)
	}
	f.exclude(d.Exclude)
	if len(*f) > known {
		return nil
	}
	ranges = without(joined(ranges), joined(d.Exclude))
	if len(ranges) == 0 {
		f.add("exclude", "leaves no port")
	} else if len(ranges) > MaxRanges {
		f.add("exclude", "leaves %d ranges; at most %d are allowed", len(ranges), MaxRanges)
	}
	return ranges
}

// exclude checks what a definition excludes.
func (f *faults) exclude(ranges []Range) {
	if len(ranges) > maxExcluded {
		f.add("exclude", "must list at most %d ports and ranges", maxExcluded)
	}
	for _, r := range ranges {
		if r.Start < 1 || r.End > 65535 || r.Start > r.End {
			f.add("exclude", "%s must be within 1-65535, and not end before it starts", r)
			return
		}
	}
}

// apartRanges finds ranges that are not allowed, or overlap.
func (f *faults) apartRanges(ranges []Range, low, high int) {
	for i, r := range ranges {
		if r.Start < low || r.End > high || r.Start > r.End {
			f.add("ranges", "%s must be within %d-%d, and not end before it starts", r, low, high)
			return
		}
		for _, other := range ranges[:i] {
			if r.Start <= other.End && other.Start <= r.End {
				f.add("ranges", "%s and %s overlap", other, r)
				return
			}
		}
	}
}
