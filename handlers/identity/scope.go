package identity

import (
	"errors"
	"path"
	"strings"
)

// Scope is a list of globs; a service that one of them matches is in scope.
type Scope []scopeGlob

// A scopeGlob has neither a slash nor a bracket in its parts, so path.Match finds no fault in them, and * crosses no slash.
type scopeGlob struct{ pool, service string }

const (
	maxScope  = 64 // globs
	maxName   = 64 // bytes of a name, and of each part of a glob
	nameChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
)

// ParseScope reads 1 to 64 globs pool/service, joined by commas. Each part is 1 to 64 bytes of A-Z a-z 0-9 . _ - and the
// wildcards * (any number of characters) and ? (one character). Its error does not repeat the text.
func ParseScope(text string) (Scope, error) {
	var scope Scope
	for glob := range strings.SplitSeq(text, ",") {
		pool, service, found := strings.Cut(glob, "/")
		if !found || !isScopePart(pool) || !isScopePart(service) {
			return nil, errors.New("must be globs pool/service, joined by commas; a part is 1 to 64 of A-Z a-z 0-9 . _ - * ?")
		}
		if scope = append(scope, scopeGlob{pool, service}); len(scope) > maxScope {
			return nil, errors.New("must have at most 64 globs")
		}
	}
	return scope, nil
}

func isScopePart(text string) bool {
	return text != "" && len(text) <= maxName && strings.TrimLeft(text, nameChars+"*?") == ""
}

// UnmarshalText reads what ParseScope reads.
func (s *Scope) UnmarshalText(text []byte) (err error) {
	*s, err = ParseScope(string(text))
	return err
}

// String returns the text that ParseScope reads.
func (s Scope) String() string {
	globs := make([]string, len(s))
	for i, g := range s {
		globs[i] = g.pool + "/" + g.service
	}
	return strings.Join(globs, ",")
}

func (s Scope) covers(pool, service string) bool {
	for _, g := range s {
		if matches(g.pool, pool) && matches(g.service, service) {
			return true
		}
	}
	return false
}

func (s Scope) reaches(pool string) bool {
	for _, g := range s {
		if matches(g.pool, pool) {
			return true
		}
	}
	return false
}

// matches reports whether a glob without faults matches a name.
func matches(glob, name string) bool {
	matched, _ := path.Match(glob, name)
	return matched
}
