package handlers

import (
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		text string
		span time.Duration
	}{
		{"0", 0}, {"0s", 0}, {"0d", 0}, {"00s", 0}, {"90s", 90 * time.Second}, {"1h30m", 90 * time.Minute}, {"1d", day},
		{"1d12h", 36 * time.Hour}, {"30d", 30 * day}, {"12h1d", 36 * time.Hour}, {"1d1d", 2 * day}, {"1.5d", 36 * time.Hour},
		{".5d", 12 * time.Hour}, {"1.d", day}, {"0.00001d", 864 * time.Millisecond}, {"1ms1us1ns", 1001001}, {"1µs", 1000}, {"1μs", 1000},
		{"0.001us", 1}, {"0.0000000000625d", 5400}, {"1.0000000000000000000000s", time.Second},
		{"106751d23h47m16.854775807s", 1<<63 - 1}, {"9223372036854775807ns", 1<<63 - 1}, // the longest
		{strings.Repeat("0", 62) + "1s", time.Second},
	} {
		if span, err := parseSpan(test.text, ""); err != nil || span != test.span {
			t.Errorf("%q: %s, %v, want %s", test.text, span, err, test.span)
		}
	}
	for _, bad := range []string{
		"", "s", "d", ".", ".d", "1", "90", "00", "-0", "-1s", "+1s", "1d-12h", "1 d", " 1d", "1d ", "1d\n", "1D", "1w", "1dd", "1.5.5d", "1e3s",
		"0x1s", "1_0s", "1d12", "١d", "1days", "inf", "NaN", "0.5ns", "1.0000000001s", "0.0000000000000000000001d", // finer than a nanosecond
		"106751d23h47m16.854775808s", "106752d", "9223372036854775808ns", "18446744073709551617ns", "99999999999999999999d", // too long for a Duration
		"213504d", "1d9999999h", strings.Repeat("0", 63) + "1s",
	} {
		if span, err := parseSpan(bad, ""); err == nil {
			t.Errorf("%q: %s, want an error", bad, span)
		}
	}
}

// What the document's patterns allow is what the parser takes, but for what is too fine or too long, and for bounds.
func TestSpansAreAsDocumented(t *testing.T) {
	patternOf := func(schema string) *regexp.Regexp {
		return regexp.MustCompile(document().Components.Schemas[schema].Value.OneOf[1].Value.Pattern)
	}
	cooldown, lease := patternOf("Cooldown"), patternOf("Lease")
	wait := regexp.MustCompile(document().Components.Parameters["LongestWait"].Value.Schema.Value.Pattern)
	pieces := []string{"0", "1", "5", "30", ".", "ns", "us", "µs", "μs", "ms", "s", "m", "h", "d", "s", "d", "-", "+", " ", "e", "x"}
	r := rand.New(rand.NewPCG(1, 2))
	taken := 0
	for range 20000 {
		text := ""
		for range 1 + r.IntN(6) {
			text += pieces[r.IntN(len(pieces)-r.IntN(2)*5)] // half of them without what is in none
		}
		quoted, _ := json.Marshal(text)
		var d duration
		inBody := decodeJSON(quoted, &d) == nil
		_, err := parseSeconds(text)
		inQuery := err == nil
		tooFine := strings.Contains(text, "n") || strings.Contains(text, "u") || strings.Contains(text, "µ") || strings.Contains(text, "μ")
		if inBody && !cooldown.MatchString(text) || inBody && text != "0" && !lease.MatchString(text) || inQuery && !wait.MatchString(text) {
			t.Errorf("%q is taken, and not documented", text)
		}
		if !tooFine && (inBody != cooldown.MatchString(text) || inQuery != wait.MatchString(text)) {
			t.Errorf("%q: in a body %t, in a query %t, documented %t and %t", text, inBody, inQuery, cooldown.MatchString(text), wait.MatchString(text))
		}
		if inBody {
			taken++
		}
	}
	if taken < 500 {
		t.Errorf("only %d of them are spans", taken)
	}
}
