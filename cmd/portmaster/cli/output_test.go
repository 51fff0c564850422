package cli

import (
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "1h30m": 90 * time.Minute, "30d": 720 * time.Hour, "1d12h": 36 * time.Hour,
		"1.5d": 36 * time.Hour, "0": 0, "250ms": 250 * time.Millisecond, "1d5": 24*time.Hour + 5*time.Second,
	} {
		var d duration
		if err := d.Set(text); err != nil || time.Duration(d) != want {
			t.Errorf("%q: %s, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "d", "-1", "-1d", "1y", "soon", "1e9", "NaN", "Inf", "0x10", "1d-5s", "1000000d", "9999999999h", "1d1d"} {
		var d duration
		if d.Set(text) == nil {
			t.Errorf("%q is %s", text, time.Duration(d))
		}
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Minute: "0s", 0: "0s", 1400 * time.Millisecond: "1s", 90 * time.Second: "90s", 119 * time.Minute: "119m",
		29*time.Minute + 59*time.Second: "30m", 47 * time.Hour: "47h", 80 * time.Hour: "3d",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	if until(time.Time{}) != "-" || exact(time.Time{}) != "" || variable("wéb-1.x") != "W_B_1_X" {
		t.Error(until(time.Time{}), exact(time.Time{}), variable("wéb-1.x"))
	}
}
