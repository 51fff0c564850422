package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Keys take long to make, so the tests share them.
var (
	rsaKey     = sync.OnceValue(func() crypto.Signer { key, _ := rsa.GenerateKey(rand.Reader, 2048); return key })
	foreignKey = sync.OnceValue(func() crypto.Signer { key, _ := rsa.GenerateKey(rand.Reader, 2048); return key })
	ecKey      = sync.OnceValue(func() crypto.Signer { key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return key })
)

// fakeIssuer is an OIDC issuer over TLS.
type fakeIssuer struct {
	*httptest.Server
	caFile      string
	discoveries atomic.Int64
	fetches     atomic.Int64
	away        atomic.Bool
	keys        atomic.Value // []jose.JSONWebKey
}

func newIssuer(t testing.TB, keys ...jose.JSONWebKey) *fakeIssuer {
	t.Helper()
	i := &fakeIssuer{}
	i.keys.Store(keys)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.discoveries.Add(1)
		i.answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		i.answer(w, jose.JSONWebKeySet{Keys: i.keys.Load().([]jose.JSONWebKey)})
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	i.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	block := &pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}
	i.caFile = write(t, "ca.pem", string(pem.EncodeToMemory(block)))
	return i
}

func (i *fakeIssuer) answer(w http.ResponseWriter, body any) {
	if i.away.Load() {
		http.Error(w, "away", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body)
}

// jwk returns the public key of a signer, as it stands in a key set.
func jwk(kid string, algorithm jose.SignatureAlgorithm, key crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Key: key.Public(), Algorithm: string(algorithm), Use: "sig"}
}

// sign makes a JWT.
func sign(t testing.TB, algorithm jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := jws.CompactSerialize()
	return text
}

type object = map[string]any

// with returns a copy of claims with other values; nil takes a claim away.
func with(claims, other object) object {
	claims = maps.Clone(claims)
	for name, value := range other {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// good returns claims that ruleOf accepts.
func good(issuer string) object {
	now := time.Now().Unix()
	return object{"iss": issuer, "aud": "portmaster", "sub": "job", "project_id": "42", "iat": now, "nbf": now - 5, "exp": now + 300}
}

// ruleOf returns an issuer of the OIDC file. No two issuers have one prefix of owners.
func ruleOf(issuer object) object {
	owner := "gitlab:{project_id}"
	if issuer["issuer"] == otherHouse {
		owner = "other:{project_id}"
	}
	rule := object{"match": object{"project_id": "42"}, "role": "client", "scope": "default/ci-*", "owner": owner}
	return with(object{"audience": "portmaster", "rules": []object{rule}}, issuer)
}

// trusting returns an Authenticator that trusts issuers, and what it logs.
func trusting(t testing.TB, issuers ...object) (*Authenticator, *logs) {
	t.Helper()
	text, _ := json.Marshal(object{"issuers": issuers})
	a, log, err := start(t, Options{OIDCFile: write(t, "oidc.json", string(text))})
	if err != nil {
		t.Fatal(err)
	}
	return a, log
}

func start(t testing.TB, options Options) (*Authenticator, *logs, error) {
	t.Helper()
	log := &logs{}
	options.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	a, err := New(ctx, options)
	return a, log, err
}

// logs collects what is logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// write makes a file.
func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// line makes a token and its line.
func line(t testing.TB, name string, role Role, scope, options string) (token, line string) {
	t.Helper()
	token = NewToken()
	line, err := Line(name, role, scope, options, token)
	if err != nil {
		t.Fatal(err)
	}
	return token, line + "\n"
}

func accepts(t testing.TB, a *Authenticator, token string) Principal {
	t.Helper()
	p, err := a.Authenticate(t.Context(), "Bearer "+token)
	if err != nil {
		t.Fatalf("a good token gets %v", err)
	}
	return p
}

func refuses(t testing.TB, a *Authenticator, header string) {
	t.Helper()
	if p, err := a.Authenticate(t.Context(), header); err != ErrUnauthenticated || fmt.Sprint(p) != fmt.Sprint(Principal{}) {
		t.Errorf("got %v, %v; want ErrUnauthenticated alone", p, err)
	}
}
