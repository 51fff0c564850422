package identity

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keyFile returns an issuer that is not asked, whose keys are rsa and ec.
func keyFile(t testing.TB, name string, keys ...jose.JSONWebKey) object {
	t.Helper()
	if keys == nil {
		keys = []jose.JSONWebKey{jwk("rsa", jose.RS256, rsaKey()), jwk("ec", jose.ES256, ecKey())}
	}
	text, _ := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	return ruleOf(object{"issuer": name, "jwks_file": write(t, "jwks.json", string(text))})
}

const (
	house      = "https://gitlab.example.com"
	otherHouse = "https://other.example.com"
)

func TestJWT(t *testing.T) {
	other := keyFile(t, otherHouse, jwk("other", jose.RS256, foreignKey()))
	a, log := trusting(t, keyFile(t, house), other)
	claims := good(house)
	for _, token := range []string{
		sign(t, jose.RS256, rsaKey(), "rsa", claims),
		sign(t, jose.ES256, ecKey(), "ec", with(claims, object{"aud": []string{"x", "portmaster"}, "nbf": nil, "project_id": 42})),
	} {
		p := accepts(t, a, token)
		if p.Name != "gitlab:42" || p.Owner != p.Name || p.Role != Client || !p.InScope("default", "ci-1") ||
			!p.Expires.Equal(time.Unix(claims["exp"].(int64), 0).Add(skew)) {
			t.Errorf("got %+v", p)
		}
	}
	now := time.Now().Unix()
	for name, change := range map[string]object{
		"another audience":          {"aud": "portmaster2"},
		"no audience":               {"aud": nil},
		"audience that is empty":    {"aud": []string{}},
		"another issuer":            {"iss": "https://evil.example.com"},
		"issuer with a slash":       {"iss": house + "/"},
		"no issuer":                 {"iss": nil},
		"issuer that is a list":     {"iss": []string{house}},
		"issuer of another key":     {"iss": otherHouse},
		"expired":                   {"exp": now - 61},
		"no exp":                    {"exp": nil},
		"exp that is text":          {"exp": fmt.Sprint(now + 300)},
		"exp that is null":          {"exp": json.RawMessage("null")},
		"exp without end":           {"exp": json.RawMessage("1e300")},
		"exp below zero":            {"exp": -1},
		"ten years":                 {"exp": now + 10*365*86400},
		"a day and a second":        {"exp": now + 86401},
		"no iat":                    {"iat": nil},
		"iat in the future":         {"iat": now + 120},
		"nbf in the future":         {"nbf": now + 120},
		"nbf that is text":          {"nbf": "soon"},
		"nbf without end":           {"nbf": json.RawMessage("1e300")},
		"another project":           {"project_id": "43"},
		"no project":                {"project_id": nil},
		"project that is a list":    {"project_id": []string{"42"}},
		"project that is an object": {"project_id": object{"id": "42"}},
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, a, "Bearer "+sign(t, jose.RS256, rsaKey(), "rsa", with(claims, change)))
		})
	}
	for _, refused := range []error{errIssuer, errAudience, errKey, errExpired, errTimes, errTooLong, errEarly, errNoRule} {
		if !strings.Contains(log.String(), refused.Error()) {
			t.Errorf("no refusal is logged as %q", refused)
		}
	}
	if strings.Contains(log.String(), "eyJ") || strings.Contains(log.String(), "portmaster2") || strings.Contains(log.String(), "evil") {
		t.Errorf("a part of a token is logged: %s", log)
	}
}

func TestJWTForged(t *testing.T) {
	other := keyFile(t, otherHouse, jwk("other", jose.RS256, foreignKey()))
	a, log := trusting(t, keyFile(t, house), other)
	claims := good(house)
	token := sign(t, jose.RS256, rsaKey(), "rsa", claims)
	accepts(t, a, token)
	parts := strings.Split(token, ".")
	der, _ := x509.MarshalPKIXPublicKey(rsaKey().Public())
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	header := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for name, forged := range map[string]string{
		"alg none":              header(`{"alg":"none","kid":"rsa"}`) + "." + parts[1] + ".",
		"alg None":              header(`{"alg":"None","kid":"rsa"}`) + "." + parts[1] + "." + parts[2],
		"no alg":                header(`{"kid":"rsa"}`) + "." + parts[1] + "." + parts[2],
		"HS256 with the PEM":    sign(t, jose.HS256, public, "rsa", claims),
		"HS256 with the DER":    sign(t, jose.HS256, der, "rsa", claims),
		"HS256 with the number": sign(t, jose.HS256, rsaKey().Public().(*rsa.PublicKey).N.Bytes(), "rsa", claims),
		"alg of another kind":   sign(t, jose.RS512, rsaKey(), "rsa", claims),
		"a foreign key":         sign(t, jose.RS256, foreignKey(), "rsa", claims),
		"no kid":                sign(t, jose.RS256, rsaKey(), "", claims),
		"an unknown kid":        sign(t, jose.RS256, rsaKey(), "new", claims),
		"kid of another issuer": sign(t, jose.RS256, foreignKey(), "other", claims),
		"kid of another key":    sign(t, jose.RS256, rsaKey(), "ec", claims),
		"kid that is a path":    sign(t, jose.RS256, rsaKey(), "../../rsa", claims),
		"kid that is a URL":     sign(t, jose.RS256, rsaKey(), "https://evil.example.com/rsa", claims),
		"kid that is a file":    sign(t, jose.HS256, make([]byte, 32), "/dev/null", claims),
		"no signature":          parts[0] + "." + parts[1] + ".",
		"two parts":             parts[0] + "." + parts[1],
		"other claims":          parts[0] + "." + header(`{"iss":"`+house+`"}`) + "." + parts[2],
		"a key of its own":      parts[0] + "." + parts[1] + "." + strings.Split(embedded(t, claims), ".")[2],
		"an embedded key":       embedded(t, claims),
	} {
		t.Run(name, func(t *testing.T) {
			before := len(log.String())
			refuses(t, a, "Bearer "+forged)
			if strings.Contains(name, "HS256") && !strings.Contains(log.String()[before:], errJWT.Error()) {
				t.Errorf("the algorithm is not the cause: %s", log.String()[before:])
			}
		})
	}
	for i := range 1000 {
		refuses(t, a, fmt.Sprintf("Bearer %s.%s.%s", header(fmt.Sprintf(`{"alg":"RS256","kid":"%d"}`, i)), parts[1], parts[2]))
	}
	accepts(t, a, token)
}

// embedded signs with a foreign key and puts it into the header.
func embedded(t *testing.T, claims any) string {
	options := &jose.SignerOptions{EmbedJWK: true}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: foreignKey()}, options.WithHeader("kid", "rsa"))
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	jws, _ := signer.Sign(payload)
	text, _ := jws.CompactSerialize()
	return text
}

// TestJWTTimes: a JWT is good from a minute before its iat and nbf to a minute after its exp, cached or not.
func TestJWTTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := trusting(t, keyFile(t, house))
		now := time.Now().Unix()
		token := sign(t, jose.RS256, rsaKey(), "rsa", with(good(house), object{"iat": now + 60, "nbf": now + 60, "exp": now + 60 + 86400}))
		early := sign(t, jose.RS256, rsaKey(), "rsa", with(good(house), object{"iat": now, "nbf": now + 61}))
		accepts(t, a, token)
		refuses(t, a, "Bearer "+early)
		time.Sleep(time.Second)
		accepts(t, a, early)
		time.Sleep(86400*time.Second + 119*time.Second - time.Nanosecond)
		accepts(t, a, token)
		time.Sleep(time.Nanosecond)
		refuses(t, a, "Bearer "+token)
	})
}

// TestJWTCache: a key that the issuer withdraws verifies what is cached for five minutes more.
func TestJWTCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := keyFile(t, house)
		a, _ := trusting(t, issuer)
		claims := with(good(house), object{"exp": time.Now().Unix() + 3600})
		token := sign(t, jose.RS256, rsaKey(), "rsa", claims)
		accepts(t, a, token)
		keys := a.jwts.issuers[house].keys
		keys.mu.Lock()
		keys.keys = nil
		keys.mu.Unlock()
		time.Sleep(5*time.Minute - time.Nanosecond)
		accepts(t, a, token)
		keys.mu.Lock()
		keys.tried = time.Now() // no fetch
		keys.mu.Unlock()
		time.Sleep(time.Nanosecond)
		refuses(t, a, "Bearer "+token)
	})
}

func TestJWTCacheBounded(t *testing.T) {
	g := generations[int, int]{limit: 100}
	for i := range 10_000 {
		g.put(i, i)
		if _, found := g.get(0); !found {
			t.Fatalf("what is used each time is forgotten after %d others", i)
		}
		if n := len(g.young) + len(g.old); n > 200 {
			t.Fatalf("%d entries", n)
		}
	}
	if _, found := g.get(9_000); found {
		t.Error("nothing is forgotten")
	}
}
