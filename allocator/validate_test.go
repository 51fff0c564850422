package allocator

import (
	"regexp"
	"strings"
	"testing"
)

// Names are what the contract's regular expressions match.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{
		"", "a", "7", "web-01", "A.b_c-d", "-a", "a-", ".", "a..b", "a b", "a\n", "ä", "a\x00", "\xff", "a{b}", "a:b", "5000", "1.0",
		strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("1", 128), strings.Repeat("a/", 64), strings.Repeat("a", 129),
		"feature/x~1:a@b+c=d", "/a", "a/", "a=", "a%2Fb", "a\\b", "a,b", "a*b", `a"b`, "a//b", "a/../b",
	} {
		f.Add(seed)
	}
	rule := regexp.MustCompile(`\A[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\z`)
	instanceRule := regexp.MustCompile(`\A[A-Za-z0-9]([A-Za-z0-9._/:@+~=-]{0,126}[A-Za-z0-9])?\z`)
	f.Fuzz(func(t *testing.T, name string) {
		var asService, asInstance faults
		asService.name("service", name)
		asInstance.instance("name", name)
		if taken, want := asService.err() == nil, rule.MatchString(name); taken != want {
			t.Errorf("%q as a name: taken %t, want %t", name, taken, want)
		}
		if taken, want := asInstance.err() == nil, instanceRule.MatchString(name); taken != want {
			t.Errorf("%q as an instance name: taken %t, want %t", name, taken, want)
		}
	})
}

// A secret is a UUID that cannot be guessed, written in one way.
func TestSecretsAreRandom(t *testing.T) {
	for _, good := range []string{
		"6f8ffc86-d98a-49ba-848a-a7cbaaea9360", "00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff",
		"019a2b3c-4d5e-7f60-9a7b-8c9d0e1f2a3b",
	} {
		var f faults
		if f.secret("secret", good); f != nil {
			t.Errorf("%s: %v", good, f)
		}
	}
	for _, bad := range []string{
		"", "guess", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"6f8ffc86-d98a-19ba-848a-a7cbaaea9360", "6f8ffc86-d98a-29ba-848a-a7cbaaea9360", "6f8ffc86-d98a-39ba-848a-a7cbaaea9360",
		"6f8ffc86-d98a-59ba-848a-a7cbaaea9360", "6f8ffc86-d98a-69ba-848a-a7cbaaea9360", "6f8ffc86-d98a-89ba-848a-a7cbaaea9360",
		"6f8ffc86-d98a-49ba-748a-a7cbaaea9360", "6f8ffc86-d98a-49ba-c48a-a7cbaaea9360", "6f8ffc86-d98a-49ba-e48a-a7cbaaea9360",
		"6F8FFC86-D98A-49BA-848A-A7CBAAEA9360", "{6f8ffc86-d98a-49ba-848a-a7cbaaea9360}", "6f8ffc86d98a49ba848aa7cbaaea9360",
		"urn:uuid:6f8ffc86-d98a-49ba-848a-a7cbaaea9360", "6f8ffc86-d98a-49ba-848a-a7cbaaea9360 ",
	} {
		var f faults
		if f.secret("secret", bad); len(f) != 1 || f[0].Field != "secret" {
			t.Errorf("%q: %v", bad, f)
		} else if bad != "" && strings.Contains(f[0].Detail, bad) {
			t.Errorf("%q: it is in %q", bad, f[0].Detail)
		}
	}
}
