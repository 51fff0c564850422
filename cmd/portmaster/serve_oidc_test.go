package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A job whose CI system signs for it calls beside callers with tokens, within the scope of its rule.
func TestOIDC(t *testing.T) {
	key, foreign := newKey(t), newKey(t)
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "1", Key: key.Public(), Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"jwks.json": string(jwks),
		"oidc.json": `{"issuers": [{"issuer": "https://ci.example", "audience": "portmaster", "jwks_file": "` + filepath.Join(dir, "jwks.json") + `",
			"rules": [{"match": {"project_id": "20"}, "role": "reader", "scope": "default/ci-*", "owner": "ci:{project_id}"}]}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tokens, token := tokensFor(t)
	p := startProgram(t, tokens, "PORTMASTER_AUTH_OIDC_FILE="+filepath.Join(dir, "oidc.json"), "PORTMASTER_LOG_LEVEL=debug")
	good := signFor(t, key, "20")
	for _, test := range []struct {
		path, token string
		status      int
	}{
		{"/v1/services", good, 200},
		{"/v1/services/ci-web", good, 404},
		{"/v1/services/web", good, 403},
		{"/v1/pools/other/services", good, 403},
		{"/v1/services/web", token, 404},
		{"/v1/services", signFor(t, foreign, "20"), 401},
		{"/v1/services", signFor(t, key, "21"), 401},
		{"/v1/services", good[:strings.LastIndex(good, ".")] + ".", 401},
	} {
		if status := p.ask(t, test.path, "", test.token); status != test.status {
			t.Errorf("%s with %.20s...: status %d, want %d", test.path, test.token, status, test.status)
		}
	}
	if strings.Contains(p.log.String(), good[:40]) {
		t.Errorf("the token is in the log:\n%s", p.log)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signFor returns the token of a job of a project.
func signFor(t *testing.T, key *ecdsa.PrivateKey, project string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{"iss": "https://ci.example", "aud": "portmaster", "project_id": project, "iat": now, "exp": now + 3600})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
