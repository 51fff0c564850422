package allocator

import (
	"fmt"
	"strings"
	"time"
)

// leaseBounds are the default and the longest lease of a service as Redis has them: "60000 3600000" in ms, 0 for none; "" for neither.
func leaseBounds(byDefault, longest time.Duration) string {
	if byDefault == 0 && longest == 0 {
		return ""
	}
	return fmt.Sprintf("%d %d", byDefault.Milliseconds(), longest.Milliseconds())
}

// setLeaseBounds sets the default and the longest lease to what Redis has; nil for neither.
func (s *Service) setLeaseBounds(answer any) error {
	text, _ := answer.(string)
	if text == "" {
		return nil
	}
	byDefault, longest, _ := strings.Cut(text, " ")
	for lease, ms := range map[*time.Duration]string{&s.DefaultLease: byDefault, &s.MaxLease: longest} {
		n, err := toInt(ms)
		if err != nil {
			return malformed("service", s.Name)
		}
		*lease = time.Duration(n) * time.Millisecond
	}
	return nil
}

// leaseBounds checks the default and the longest lease of a definition.
func (f *faults) leaseBounds(d Definition) {
	f.lease("default_lease", d.DefaultLease)
	f.lease("max_lease", d.MaxLease)
	if d.DefaultLease != nil && d.MaxLease != nil && *d.DefaultLease > *d.MaxLease {
		f.add("default_lease", "must not be longer than max_lease")
	}
}

// given returns a lease that a definition may have; nil for none.
func given(lease time.Duration) *time.Duration {
	if lease == 0 {
		return nil
	}
	return &lease
}
