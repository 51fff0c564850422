package identity

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestScope(t *testing.T) {
	for _, c := range []struct {
		scope, pool, service string
		in, reaches          bool
	}{
		{"*/*", "default", "web", true, true},
		{"default/web", "default", "web", true, true},
		{"default/web", "default", "web2", false, true},
		{"default/web", "default", "we", false, true},
		{"default/web", "Default", "web", false, false},
		{"default/ci-*", "default", "ci-", true, true},
		{"default/ci-*", "default", "ci-1/2", false, true},
		{"default/*", "default", "a/b", false, true},
		{"*/web", "default/x", "web", false, false},
		{"def*t/w?b", "default", "web", true, true},
		{"def*t/w?b", "default", "wb", false, true},
		{"default/w?b", "default", "w/b", false, true},
		{"a/x,b/y", "b", "y", true, true},
		{"a/x,b/y", "a", "y", false, true},
		{"a/x,b/y", "c", "x", false, false},
		{"a.c/x", "abc", "x", false, false},
		{"*a*a*a*a*a*a*a*b/x", strings.Repeat("a", 64), "x", false, false},
	} {
		scope, err := ParseScope(c.scope)
		if err != nil {
			t.Errorf("%s: %v", c.scope, err)
		}
		p := Principal{Scope: scope}
		if p.InScope(c.pool, c.service) != c.in || p.ReachesPool(c.pool) != c.reaches {
			t.Errorf("%s has %s/%s: want %t, and reaches the pool: want %t", c.scope, c.pool, c.service, c.in, c.reaches)
		}
	}
	if p := (Principal{}); p.InScope("default", "web") || p.ReachesPool("default") {
		t.Error("the zero Principal has a scope")
	}
	if p := Anonymous(); !p.InScope("default", "web") || !p.ReachesPool("x") || p.Owner != "" || p.Role != Operator {
		t.Error("the anonymous Principal may not do everything")
	}
}

// TestAdmit: a principal has its rate, as a burst and after it, on its own, however many call at once.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _ := start(t, Options{})
		p, other, unlimited := Principal{Name: "a", Rate: 50}, Principal{Name: "b", Rate: 50}, Principal{Name: "c"}
		admitted := func(p Principal) int64 {
			var n atomic.Int64
			var group sync.WaitGroup
			for range 200 {
				group.Go(func() {
					if wait := a.Admit(p); wait == 0 {
						n.Add(1)
					} else if wait < 0 || wait > time.Second/time.Duration(p.Rate) {
						t.Errorf("wait for %s", wait)
					}
				})
			}
			group.Wait()
			return n.Load()
		}
		if n := admitted(p); n != 50 {
			t.Errorf("%d calls of a burst", n)
		}
		if n := admitted(other); n != 50 {
			t.Errorf("%d calls of another", n)
		}
		if n := admitted(unlimited); n != 200 {
			t.Errorf("%d calls of one without a limit", n)
		}
		time.Sleep(a.Admit(p)) // the calls that were refused cost nothing
		if wait := a.Admit(p); wait != 0 {
			t.Errorf("after the wait: wait for %s", wait)
		}
		time.Sleep(time.Second / 2)
		if n := admitted(p); n != 25 {
			t.Errorf("%d calls after half a second", n)
		}
		p.Rate = 10
		if n := admitted(p); n != 10 {
			t.Errorf("%d calls at a new rate", n)
		}
		for i := range 5 * maxBuckets {
			a.Admit(Principal{Name: fmt.Sprint("gitlab:", i), Rate: 1})
		}
		if n := len(a.limiters.buckets.young) + len(a.limiters.buckets.old); n > 2*maxBuckets {
			t.Errorf("%d buckets", n)
		}
	})
}

func TestNoFiles(t *testing.T) {
	a, _, err := start(t, Options{})
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, a, "")
	refuses(t, a, "Bearer "+NewToken())
	if a.TokensBroken() {
		t.Error("no file is broken")
	}
	if _, _, err := start(t, Options{OIDCFile: "missing"}); err == nil {
		t.Error("a missing OIDC file is no error")
	}
	if _, _, err := start(t, Options{TokensFile: "missing"}); err == nil {
		t.Error("a missing tokens file is no error")
	}
}

// Both headers get the one error, whatever is in them, and nothing of them is logged.
func FuzzAuthorization(f *testing.F) {
	token, text := line(f, "ci", Client, "*/*", "-")
	issuer := keyFile(f, house)
	jwt := sign(f, jose.RS256, rsaKey(), "rsa", good(house))
	a, log := trusting(f, issuer)
	if err := a.tokens.use([]byte(text)); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", token, jwt, "a.b.c", "eyJhbGciOiJub25lIn0.e30."} {
		f.Add("Bearer " + seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		p, err := a.Authenticate(t.Context(), header)
		known := strings.HasSuffix(header, " "+token) || strings.HasSuffix(header, " "+jwt)
		if err == nil && (!known || p.Name == "") {
			t.Errorf("%q is %v", header, p)
		}
		if err != nil && err != ErrUnauthenticated {
			t.Errorf("%q gets %v", header, err)
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		if n := log.text.Len(); n > 300 {
			t.Errorf("%q: %d bytes are logged", header, n)
		}
		log.text.Reset()
	})
}

func FuzzTokensFile(f *testing.F) {
	_, text := line(f, "ci", Client, "default/ci-*,games/*", "held=200,rate=50,expires=2027-06-01")
	for _, seed := range []string{"", "# x\n", text, text + text, strings.Replace(text, "client", "root", 1)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := parseTokens(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") || len(err.Error()) > 150 {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for _, p := range tokens {
			again, err := ParseScope(p.Scope.String())
			if err != nil || again.String() != p.Scope.String() || p.Name == "" || p.Owner != p.Name || p.Role == "" {
				t.Errorf("%q: %+v, %v", text, p, err)
			}
		}
	})
}

func BenchmarkToken(b *testing.B) {
	token, text := line(b, "ci", Client, "*/*", "expires=2999-01-01")
	for range 1000 {
		_, other := line(b, "ci", Client, "*/*", "expires=2999-01-01")
		text += other
	}
	a, _, err := start(b, Options{TokensFile: write(b, "tokens", text)})
	if err != nil {
		b.Fatal(err)
	}
	header := "Bearer " + token
	b.ReportAllocs()
	for b.Loop() {
		a.Authenticate(b.Context(), header)
	}
}

func BenchmarkJWT(b *testing.B) {
	a, _ := trusting(b, keyFile(b, house))
	b.Run("new", func(b *testing.B) {
		header := "Bearer " + sign(b, jose.RS256, rsaKey(), "rsa", good(house))
		b.ReportAllocs()
		for b.Loop() {
			a.jwts.cached.young, a.jwts.cached.old = nil, nil
			a.Authenticate(b.Context(), header)
		}
	})
	b.Run("cached", func(b *testing.B) {
		header := "Bearer " + sign(b, jose.RS256, rsaKey(), "rsa", good(house))
		b.ReportAllocs()
		for b.Loop() {
			a.Authenticate(b.Context(), header)
		}
	})
}

func BenchmarkInScopeAndAdmit(b *testing.B) {
	a, _, _ := start(b, Options{})
	scope, _ := ParseScope("default/ci-*,games/*")
	p := Principal{Name: "ci", Scope: scope, Rate: 1000}
	b.ReportAllocs()
	for b.Loop() {
		if p.InScope("games", "doom") {
			a.Admit(p)
		}
	}
}
