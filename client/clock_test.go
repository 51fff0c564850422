package client

import (
	"testing"
	"time"
	"unsafe"
)

// A machine that is suspended stops one of the two clocks in a time.Time. The time that passed is that of the other.
func TestPassed(t *testing.T) {
	const hour = 3600
	now := time.Now()
	wall, monotonic := now, now
	(*[2]uint64)(unsafe.Pointer(&wall))[0] -= hour << 30 // the seconds of the clock on the wall stand above 30 bits of nanoseconds
	(*[2]uint64)(unsafe.Pointer(&monotonic))[1] -= hour * uint64(time.Second)
	for what, since := range map[string]time.Time{"wall": wall, "monotonic": monotonic, "alone": now.Round(0).Add(-time.Hour)} {
		if p := passed(since); p < time.Hour || p > 2*time.Hour {
			t.Errorf("%s: %s passed since %s", what, p, since)
		}
	}
	if p := passed(now); p > time.Minute {
		t.Errorf("%s passed", p)
	}
}
