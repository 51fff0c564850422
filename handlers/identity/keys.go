package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	fetchPeriod  = 10 * time.Second // at least this lies between two fetches from an issuer
	fetchTimeout = 5 * time.Second
	maxKeyAge    = 10 * time.Minute // older keys are fetched again in the background, in case that the issuer withdrew one
	maxAnswer    = 1 << 20          // bytes of an issuer's answer
	minRSABits   = 2048
)

// keySet holds the public keys of an issuer, by key ID. In place of go-oidc's own, which asks the issuer for each unknown key.
type keySet struct {
	config issuerConfig
	log    *slog.Logger
	ctx    context.Context // that of fetches: whoever waits for one may leave

	mu      sync.Mutex
	keys    map[string]*jose.JSONWebKey
	tried   time.Time     // when the last fetch began
	pending chan struct{} // closed when the fetch under way ends; nil if there is none

	jwksURL string // of the fetch under way alone; empty: to be discovered
}

// newKeySet returns the keys of an issuer: at once those of a file, at the first need those that the issuer is asked for.
func newKeySet(ctx context.Context, c issuerConfig, log *slog.Logger) (*keySet, error) {
	k := &keySet{config: c, log: log, ctx: ctx}
	if c.JWKSFile == "" {
		_, err := k.client()
		return k, err
	}
	k.tried = time.Now()
	var err error
	k.keys, err = k.fetch(ctx)
	return k, err
}

// VerifySignature is called by go-oidc. It takes the JWT out of ctx, where it is parsed already.
func (k *keySet) VerifySignature(ctx context.Context, _ string) ([]byte, error) {
	try := ctx.Value(attemptKey{}).(*attempt)
	header := try.jws.Signatures[0].Header
	key := k.find(ctx, header.KeyID)
	if key == nil || key.Algorithm != "" && key.Algorithm != header.Algorithm {
		try.err = errKey
		return nil, errKey
	}
	payload, err := try.jws.Verify(key)
	if err != nil {
		try.err = errSignedBy
	}
	return payload, err
}

// find returns a key, or nil. An unknown one waits for a fetch, if one is under way or may begin; a known one never does.
func (k *keySet) find(ctx context.Context, id string) *jose.JSONWebKey {
	k.mu.Lock()
	key := k.keys[id]
	due := fetchPeriod
	if key != nil {
		due = maxKeyAge
	}
	if k.pending == nil && (k.tried.IsZero() || time.Since(k.tried) >= due) {
		k.pending, k.tried = make(chan struct{}), time.Now()
		go k.refresh()
	}
	pending := k.pending
	k.mu.Unlock()
	if key != nil || pending == nil {
		return key
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout+time.Second) // a file may stall, too
	defer cancel()
	select {
	case <-pending:
	case <-ctx.Done():
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[id]
}

// refresh fetches the keys. If that fails, those that are known stay.
func (k *keySet) refresh() {
	ctx, cancel := context.WithTimeout(k.ctx, fetchTimeout)
	defer cancel()
	keys, err := k.fetch(ctx)
	if err != nil {
		k.jwksURL = ""
		k.log.Warn("the keys of an issuer could not be fetched", "issuer", k.config.Issuer, "error", fmt.Sprintf("%.300s", err))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.keys = keys
	}
	close(k.pending)
	k.pending = nil
}

// fetch reads the keys of the issuer, from the file or from the issuer.
func (k *keySet) fetch(ctx context.Context) (map[string]*jose.JSONWebKey, error) {
	if k.config.JWKSFile != "" {
		content, err := readFile(k.config.JWKSFile)
		if err != nil {
			return nil, err
		}
		return parseKeys(content)
	}
	client, err := k.client()
	if err != nil {
		return nil, err
	}
	if k.jwksURL == "" {
		provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), k.config.Issuer)
		if err != nil {
			return nil, err
		}
		var found struct {
			JWKSURL string `json:"jwks_uri"`
		}
		if err := provider.Claims(&found); err != nil || !strings.HasPrefix(found.JWKSURL, "https://") {
			return nil, errors.New("the issuer names no jwks_uri of https://")
		}
		k.jwksURL = found.JWKSURL
	}
	content, err := get(ctx, client, k.jwksURL)
	if err != nil {
		return nil, err
	}
	return parseKeys(content)
}

// client returns a client for one fetch, so that a new ca_file counts.
func (k *keySet) client() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.MaxResponseHeaderBytes = 64 << 10
	if k.config.CAFile != "" {
		pem, err := readFile(k.config.CAFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, errors.New("ca_file has no certificate in PEM")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{
		Transport:     bounded{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// bounded cuts answers off, which go-oidc would read whole.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.Transport.RoundTrip(request)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	}
	return response, err
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}

// parseKeys reads a JSON Web Key Set. It leaves out what cannot verify a JWT: keys without a key ID, for encryption, secret or
// private, too short, or of a kind that is unknown. A set without any other is an error.
func parseKeys(content []byte) (map[string]*jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	keys := map[string]*jose.JSONWebKey{}
	for _, text := range set.Keys {
		key := &jose.JSONWebKey{}
		if err := key.UnmarshalJSON(text); err == nil && key.KeyID != "" && (key.Use == "" || key.Use == "sig") && isStrong(key.Key) {
			keys[key.KeyID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("key set: no RSA key of 2048 bits or more and no EC key, with a kid")
	}
	return keys, nil
}

func isStrong(key any) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		return true
	}
	return false
}
