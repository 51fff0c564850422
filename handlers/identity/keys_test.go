package identity

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func (i *fakeIssuer) config() object { return ruleOf(object{"issuer": i.URL, "ca_file": i.caFile}) }

func (i *fakeIssuer) fetched(t *testing.T, discoveries, fetches int64) {
	t.Helper()
	if d, f := i.discoveries.Load(), i.fetches.Load(); d != discoveries || f != fetches {
		t.Errorf("the issuer was asked %d times for itself and %d times for its keys; want %d and %d", d, f, discoveries, fetches)
	}
}

// TestStrangers: however many tokens of unknown keys come, the issuer is asked once in ten seconds.
func TestStrangers(t *testing.T) {
	issuer := newIssuer(t, jwk("rsa", jose.RS256, rsaKey()))
	synctest.Test(t, func(t *testing.T) {
		a, _ := trusting(t, issuer.config())
		strangers := make([]string, 1000)
		claims := good(issuer.URL)
		for i := range strangers {
			strangers[i] = sign(t, jose.ES256, ecKey(), fmt.Sprintf("stranger-%d", i), claims)
		}
		come := func() {
			var group sync.WaitGroup
			for _, token := range strangers {
				group.Go(func() { refuses(t, a, "Bearer "+token) })
			}
			group.Wait()
		}
		come()
		issuer.fetched(t, 1, 1)
		accepts(t, a, sign(t, jose.RS256, rsaKey(), "rsa", claims))
		time.Sleep(10*time.Second - time.Nanosecond)
		come()
		issuer.fetched(t, 1, 1)
		time.Sleep(time.Nanosecond)
		come()
		issuer.fetched(t, 1, 2)
	})
}

// TestIssuerAway: an issuer that is away stops no start; one that leaves stops no call whose key is known; and each of them is
// asked again when it is back.
func TestIssuerAway(t *testing.T) {
	issuer := newIssuer(t, jwk("rsa", jose.RS256, rsaKey()))
	issuer.away.Store(true)
	synctest.Test(t, func(t *testing.T) {
		a, log := trusting(t, issuer.config(), keyFile(t, otherHouse))
		token := func(kid string) string {
			return sign(t, jose.RS256, rsaKey(), kid, with(good(issuer.URL), object{"jti": time.Now().UnixNano()}))
		}
		refuses(t, a, "Bearer "+token("rsa"))
		accepts(t, a, sign(t, jose.RS256, rsaKey(), "rsa", good(otherHouse)))
		issuer.away.Store(false)
		refuses(t, a, "Bearer "+token("rsa"))
		issuer.fetched(t, 1, 0)
		time.Sleep(fetchPeriod)
		accepts(t, a, token("rsa"))
		issuer.fetched(t, 2, 1)

		issuer.away.Store(true)
		for range 48 {
			time.Sleep(time.Hour)
			accepts(t, a, token("rsa"))
		}
		if issuer.discoveries.Load() < 10 || issuer.fetches.Load() != 2 {
			t.Error("keys that are old are not fetched again")
		}
		refuses(t, a, "Bearer "+token("new"))
		if !strings.Contains(log.String(), "could not be fetched") || !strings.Contains(log.String(), "502") {
			t.Errorf("the log does not tell of the issuer: %s", log)
		}

		issuer.away.Store(false)
		issuer.keys.Store([]jose.JSONWebKey{jwk("new", jose.RS256, rsaKey())})
		time.Sleep(fetchPeriod)
		accepts(t, a, token("new"))
		refuses(t, a, "Bearer "+token("rsa")) // withdrawn
	})
}

// TestKeyWithdrawn: a key that the issuer no longer names ends though no unknown key makes for a fetch.
func TestKeyWithdrawn(t *testing.T) {
	issuer := newIssuer(t, jwk("rsa", jose.RS256, rsaKey()))
	synctest.Test(t, func(t *testing.T) {
		a, _ := trusting(t, issuer.config())
		token := func() string {
			return sign(t, jose.RS256, rsaKey(), "rsa", with(good(issuer.URL), object{"jti": time.Now().UnixNano()}))
		}
		accepts(t, a, token())
		issuer.keys.Store([]jose.JSONWebKey{jwk("new", jose.RS256, rsaKey())})
		time.Sleep(10*time.Minute - time.Second)
		accepts(t, a, token())
		time.Sleep(time.Second) // which passes when a fetch is done
		issuer.fetched(t, 1, 1)
		accepts(t, a, token()) // and the keys are fetched behind it
		time.Sleep(time.Second)
		refuses(t, a, "Bearer "+token())
	})
}

// TestIssuerStalls: an issuer that never answers, answers without end, or sends elsewhere costs its callers a bounded time.
func TestIssuerStalls(t *testing.T) {
	elsewhere := newIssuer(t, jwk("rsa", jose.RS256, rsaKey()))
	public, _ := jwk("rsa", jose.RS256, rsaKey()).MarshalJSON()
	for name, answer := range map[string]http.HandlerFunc{
		"stalls":      func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"without end": func(w http.ResponseWriter, _ *http.Request) { endless(w) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/jwks" {
				http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
			}
			fmt.Fprintf(w, `{"issuer":"https://%s","jwks_uri":"https://%[1]s/jwks"}`, r.Host)
		},
		"keys that are an error": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/jwks" {
				w.WriteHeader(http.StatusInternalServerError)
			}
			fmt.Fprintf(w, `{"issuer":"https://%s","jwks_uri":"https://%[1]s/jwks","keys":[%s]}`, r.Host, public)
		},
		"another issuer": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"issuer":"x","jwks_uri":"%s/jwks"}`, elsewhere.URL)
		},
		"keys over http": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"issuer":"https://%s","jwks_uri":"http://x"}`, r.Host)
		},
		"nothing of JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := newIssuer(t)
			issuer.Config.Handler = answer
			a, log := trusting(t, issuer.config())
			token := sign(t, jose.RS256, rsaKey(), "rsa", good(issuer.URL))
			if name == "stalls" {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				if _, err := a.Authenticate(ctx, "Bearer "+token); err == nil || strings.Contains(log.String(), "could not be fetched") {
					t.Error("a caller that leaves waits for the issuer")
				}
			}
			refuses(t, a, "Bearer "+token)
			if elsewhere.fetches.Load() != 0 || !strings.Contains(log.String(), "could not be fetched") {
				t.Errorf("keys were fetched: %s", log)
			}
			if len(log.String()) > 2000 {
				t.Error("the log has the whole answer")
			}
		})
	}
}

func endless(w http.ResponseWriter) {
	for text := []byte(strings.Repeat(" ", 64<<10)); ; {
		if _, err := w.Write(text); err != nil {
			return
		}
	}
}

// TestKeySet: what cannot verify a JWT is left out, and spoils no other key.
func TestKeySet(t *testing.T) {
	public, _ := jwk("rsa", "", rsaKey()).MarshalJSON()
	modulus := strings.Repeat("x", 171) // of 1,024 bits
	set := `{"keys":[{"kty":"oct","kid":"oct","k":"AAAA"},{"kty":"OKP","crv":"X448","kid":"x","x":"AA"},{"kty":"RSA"},7,
		{"kty":"RSA","kid":"small","n":"` + modulus + `","e":"AQAB"},{"kty":"EC","crv":"secp256k1","kid":"k","x":"AA","y":"AA"},
		` + strings.NewReplacer(`"sig"`, `"enc"`, `"rsa"`, `"enc"`).Replace(string(public)) + `,
		` + strings.Replace(string(public), `"rsa"`, `""`, 1) + `,
		` + string(public) + `]}`
	keys, err := parseKeys([]byte(set))
	if err != nil || len(keys) != 1 || keys["rsa"] == nil {
		t.Errorf("got %d keys, %v", len(keys), err)
	}
	for _, text := range []string{"", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct","kid":"oct","k":"AAAA"}]}`, `{"keys":{}}`} {
		if _, err := parseKeys([]byte(text)); err == nil {
			t.Errorf("%s is a key set", text)
		}
	}
}

// TestKeyFileChanges: a new key in a jwks_file is found as one of an issuer is.
func TestKeyFileChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := keyFile(t, house)
		a, _ := trusting(t, issuer)
		later := keyFile(t, house, jwk("new", jose.RS256, rsaKey()))["jwks_file"].(string)
		if err := os.Rename(later, issuer["jwks_file"].(string)); err != nil {
			t.Fatal(err)
		}
		token := sign(t, jose.RS256, rsaKey(), "new", good(house))
		refuses(t, a, "Bearer "+token)
		time.Sleep(fetchPeriod)
		accepts(t, a, token)
	})
}
