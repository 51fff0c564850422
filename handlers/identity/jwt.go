package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
)

const (
	skew        = time.Minute     // how far a clock may be off
	maxLifetime = 24 * time.Hour  // from iat to exp
	cachePeriod = 5 * time.Minute // for which a JWT is not verified again
	maxCached   = 10_000          // JWTs
)

// algorithms are those with a public key, but for EdDSA, which no CI system uses.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512,
}

// Why a JWT is refused.
var (
	errJWT      = errors.New("the token is in no file, and no JWT of an algorithm that is allowed")
	errIssuer   = errors.New("the issuer of the JWT is not trusted")
	errKey      = errors.New("the issuer has no such key for the JWT, or could not be asked")
	errSignedBy = errors.New("the signature of the JWT is wrong")
	errAudience = errors.New("the JWT is for another audience, or its claims are malformed")
	errTimes    = errors.New("the JWT lacks exp or iat, or they are no times")
	errTooLong  = errors.New("the JWT is valid for longer than a day")
	errEarly    = errors.New("the JWT is not valid yet")
	errNoRule   = errors.New("no rule matches the claims of the JWT")
)

// verifier finds the principals of JWTs.
type verifier struct {
	issuers map[string]*issuer // by iss

	mu     sync.Mutex
	cached generations[digest, cached]
}

type issuer struct {
	rules    []rule
	keys     *keySet
	standard *oidc.IDTokenVerifier // signature, iss, aud
}

type cached struct {
	principal *Principal
	until     time.Time
}

// newVerifier reads the OIDC file, and the files that it names.
func newVerifier(ctx context.Context, file string, log *slog.Logger) (*verifier, error) {
	configs, err := readOIDCFile(file)
	if err != nil {
		return nil, fmt.Errorf("OIDC file %s: %w", file, err)
	}
	v := &verifier{issuers: map[string]*issuer{}, cached: generations[digest, cached]{limit: maxCached}}
	for i, c := range configs {
		keys, err := newKeySet(ctx, c, log)
		if err != nil {
			return nil, fmt.Errorf("OIDC file %s: /issuers/%d: %w", file, i, err)
		}
		config := &oidc.Config{ClientID: c.Audience, SkipExpiryCheck: true} // algorithms and times are checked below, more strictly
		for _, algorithm := range algorithms {
			config.SupportedSigningAlgs = append(config.SupportedSigningAlgs, string(algorithm))
		}
		v.issuers[c.Issuer] = &issuer{rules: c.Rules, keys: keys, standard: oidc.NewVerifier(c.Issuer, keys, config)}
	}
	return v, nil
}

// verify returns the principal of a JWT, whose digest is sum. It may have expired.
func (v *verifier) verify(ctx context.Context, sum digest, token string) (*Principal, error) {
	now := time.Now()
	v.mu.Lock()
	known, found := v.cached.get(sum)
	v.mu.Unlock()
	if found && now.Before(known.until) {
		return known.principal, nil
	}
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, errJWT
	}
	var c claims
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &c); err != nil {
		return nil, errJWT
	}
	iss, _ := c.text("iss")
	i := v.issuers[iss]
	if i == nil {
		return nil, errIssuer
	}
	try := &attempt{jws: jws, err: errAudience}
	if _, err := i.standard.Verify(context.WithValue(ctx, attemptKey{}, try), token); err != nil {
		return nil, try.err // that of go-oidc may quote the token
	}
	p, err := i.principal(c, now)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.cached.put(sum, cached{p, now.Add(cachePeriod)})
	v.mu.Unlock()
	return p, nil
}

// An attempt takes a parsed JWT through go-oidc to the keys, and brings back why they refuse it.
type attempt struct {
	jws *jose.JSONWebSignature
	err error
}

type attemptKey struct{}

// principal returns who the claims stand for.
func (i *issuer) principal(c claims, now time.Time) (*Principal, error) {
	expires, err := c.expiry(now)
	if err != nil {
		return nil, err
	}
	for _, r := range i.rules {
		if r.matches(c) {
			owner, err := r.Owner.owner(c)
			return &Principal{
				Name: owner, Owner: owner, Role: r.Role, Scope: r.Scope, Held: r.Held, Rate: r.Rate, Expires: expires,
			}, err
		}
	}
	return nil, errNoRule
}
