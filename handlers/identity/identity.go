// Package identity tells who calls and what that caller may do. A caller shows a token of the tokens file, or a JSON Web Token of
// an OIDC issuer that the OIDC file trusts. The package knows no route and no HTTP server; README.md describes both files.
package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"time"
)

// Role says which routes a caller may use.
type Role string

// The roles. None of them includes another.
const (
	Reader   Role = "reader"
	Client   Role = "client"
	Operator Role = "operator"
)

// UnmarshalText reads the name of a role.
func (r *Role) UnmarshalText(text []byte) error {
	switch *r = Role(text); *r {
	case Reader, Client, Operator:
		return nil
	}
	return errors.New("must be reader, client or operator")
}

// Principal is who calls, and what it may do.
type Principal struct {
	Name    string    // for the audit and the rate. The name of a token has no colon, the name of an OIDC caller has one
	Owner   string    // for the records of its ports: at most 128 bytes of A-Z a-z 0-9 . _ - : / @ +, or empty for no owner
	Role    Role      // which routes
	Scope   Scope     // which services
	Held    int       // the most ports that it may hold in a pool; 0: no limit
	Rate    int       // the most calls a second on this server; 0: no limit
	Expires time.Time // from then on its token is refused, a JWT 60 s after its exp; zero: never
}

// Anonymous returns the principal of every call to a server that is open on purpose: it may do everything, and owns nothing.
func Anonymous() Principal {
	return Principal{Name: "anonymous", Role: Operator, Scope: Scope{{pool: "*", service: "*"}}}
}

// InScope reports whether p may use a service of a pool.
func (p Principal) InScope(pool, service string) bool { return p.Scope.covers(pool, service) }

// ReachesPool reports whether p may use at least one name for a service in a pool, whether or not that service exists.
func (p Principal) ReachesPool(pool string) bool { return p.Scope.reaches(pool) }

// Options are the settings of an Authenticator. A file without a path is not used.
type Options struct {
	TokensFile string // read again when it changes
	OIDCFile   string // read once
	Log        *slog.Logger
}

// Authenticator finds the principal of a call.
type Authenticator struct {
	log      *slog.Logger
	tokens   tokensFile
	jwts     *verifier // nil without an OIDC file
	limiters limiters
}

// ErrUnauthenticated is the error of Authenticate for every cause.
var ErrUnauthenticated = errors.New("the call has no valid token")

// Why a call is refused. These texts are all that is logged about it.
var (
	errNoToken   = errors.New("there is no Authorization header")
	errMalformed = errors.New("the Authorization header is not a bearer token")
	errUnknown   = errors.New("the token is in no file")
	errExpired   = errors.New("the token has expired")
)

// New returns an Authenticator that uses the files of opts; without any, it refuses every call. Its error names the line or
// the field of a file that is wrong. It asks no issuer. What it does in the background ends with ctx.
func New(ctx context.Context, opts Options) (*Authenticator, error) {
	a := &Authenticator{log: opts.Log, tokens: tokensFile{path: opts.TokensFile, log: opts.Log}}
	a.limiters.buckets.limit = maxBuckets
	if opts.OIDCFile != "" {
		var err error
		if a.jwts, err = newVerifier(ctx, opts.OIDCFile, opts.Log); err != nil {
			return nil, err
		}
	}
	if opts.TokensFile != "" {
		if err := a.tokens.start(ctx); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// TokensBroken reports whether the tokens file is malformed or unreadable since its last change, so that older tokens are
// in use.
func (a *Authenticator) TokensBroken() bool { return a.tokens.broken.Load() }

// Authenticate returns the principal that an Authorization header stands for, or ErrUnauthenticated; why is logged at debug
// level. A token of the file costs less than a microsecond. A JWT of an unknown key may wait for its issuer, for 6 s at most or until
// ctx ends. The header is not kept.
func (a *Authenticator) Authenticate(ctx context.Context, header string) (Principal, error) {
	p, err := a.find(ctx, header)
	if err != nil {
		a.log.LogAttrs(ctx, slog.LevelDebug, "a call is not authenticated", slog.String("cause", err.Error()))
		return Principal{}, ErrUnauthenticated
	}
	return *p, nil
}

func (a *Authenticator) find(ctx context.Context, header string) (*Principal, error) {
	token, err := bearer(header)
	if err != nil {
		return nil, err
	}
	sum := digest(sha256.Sum256([]byte(token)))
	p := a.tokens.find(sum)
	if p == nil {
		if a.jwts == nil {
			return nil, errUnknown
		}
		if p, err = a.jwts.verify(ctx, sum, token); err != nil {
			return nil, err
		}
	}
	if !p.Expires.IsZero() && !time.Now().Before(p.Expires) {
		return nil, errExpired
	}
	return p, nil
}

// A digest is the SHA-256 of a token, in whose place it is kept.
type digest [sha256.Size]byte

const maxHeader = 8 << 10

// bearer returns the token of an Authorization header.
func bearer(header string) (string, error) {
	if header == "" {
		return "", errNoToken
	}
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimLeft(token, " ")
	if len(header) > maxHeader || !strings.EqualFold(scheme, "Bearer") || !isToken(token) {
		return "", errMalformed
	}
	return token, nil
}

// isToken reports whether text is a token68 of RFC 7235.
func isToken(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~+/=", c) < 0:
			return false
		}
	}
	return text != ""
}
