package allocator

import (
	"regexp"
	"strings"
	"testing"
)

// A name is what the contract's regular expression matches; an instance name is not all digits either.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{
		"", "a", "7", "web-01", "A.b_c-d", "-a", "a-", ".", "a..b", "a b", "a\n", "ä", "a\x00", "\xff", "a{b}", "a:b", "5000", "1.0",
		strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("1", 64),
	} {
		f.Add(seed)
	}
	rule := regexp.MustCompile(`\A[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\z`)
	digits := regexp.MustCompile(`\A[0-9]+\z`)
	f.Fuzz(func(t *testing.T, name string) {
		var asService, asInstance faults
		asService.name("service", name)
		asInstance.instance("name", name)
		if taken, want := asService.err() == nil, rule.MatchString(name); taken != want {
			t.Errorf("%q as a name: taken %t, want %t", name, taken, want)
		}
		if taken, want := asInstance.err() == nil, rule.MatchString(name) && !digits.MatchString(name); taken != want {
			t.Errorf("%q as an instance name: taken %t, want %t", name, taken, want)
		}
	})
}
