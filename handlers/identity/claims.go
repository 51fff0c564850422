package identity

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"portmaster/allocator"
)

// claims are the payload of a JWT.
type claims map[string]jsontext.Value

// text returns a claim that is a string or a number.
func (c claims) text(name string) (string, bool) {
	switch value := c[name]; value.Kind() {
	case '"':
		var text string
		err := json.Unmarshal(value, &text)
		return text, err == nil
	case '0':
		return string(value), true
	}
	return "", false
}

// time returns a claim that is a number of seconds since 1970, up to the year 4147.
func (c claims) time(name string) (time.Time, bool) {
	value := c[name]
	seconds, err := strconv.ParseFloat(string(value), 64)
	if value.Kind() != '0' || err != nil || seconds < 0 || seconds > 1<<36 {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// expiry checks the times of a JWT but for its end, and returns that: from then on it is refused.
func (c claims) expiry(now time.Time) (time.Time, error) {
	exp, hasExp := c.time("exp")
	iat, hasIat := c.time("iat")
	nbf, hasNbf := c.time("nbf")
	_, givenNbf := c["nbf"]
	switch {
	case !hasExp || !hasIat || givenNbf && !hasNbf:
		return time.Time{}, errTimes
	case exp.Sub(iat) > maxLifetime:
		return time.Time{}, errTooLong
	case iat.After(now.Add(skew)), hasNbf && nbf.After(now.Add(skew)):
		return time.Time{}, errEarly
	}
	return exp.Add(skew), nil
}

// glob is a pattern for a claim: * is any number of characters and ? one, neither of them a slash. All others are themselves.
type glob struct {
	pattern string // for path.Match, without a fault
	literal bool   // no wildcard is in it
}

var escapeGlob = strings.NewReplacer(`\`, `\\`, `[`, `\[`)

// UnmarshalText reads a pattern.
func (g *glob) UnmarshalText(text []byte) error {
	if len(text) == 0 || len(text) > 256 {
		return errors.New("must be 1 to 256 bytes")
	}
	*g = glob{pattern: escapeGlob.Replace(string(text)), literal: !strings.ContainsAny(string(text), "*?")}
	_, err := path.Match(g.pattern, "")
	return err
}

// template makes an owner of claims.
type template struct {
	text  string
	parts []templatePart
}

// A templatePart is the text before a claim, and the claim. The last one may have no claim.
type templatePart struct{ text, claim string }

var errOwner = errors.New("the claims make no owner: each must be a string or a number, in the characters of an owner")

// UnmarshalText reads a template, such as gitlab:{project_id}. It begins with a name of its own and a colon, by which no owner
// of it is that of a token or of another template.
func (t *template) UnmarshalText(text []byte) error {
	*t = template{text: string(text)}
	for rest := t.text; rest != ""; {
		part, after, opened := strings.Cut(rest, "{")
		claim, after, closed := strings.Cut(after, "}")
		if opened && (!closed || claim == "") || strings.TrimLeft(part, allocator.OwnerChars) != "" || part == "" {
			return errors.New("must be text of A-Z a-z 0-9 . _ - : / @ + and claims in braces, with text before each of them")
		}
		t.parts = append(t.parts, templatePart{part, claim})
		rest = after
	}
	if len(t.text) > 4*allocator.MaxOwner || t.parts == nil || strings.Index(t.parts[0].text, ":") < 1 {
		return fmt.Errorf("must begin with a name and a colon, such as gitlab:{project_id}, and have at most %d bytes", 4*allocator.MaxOwner)
	}
	return nil
}

// prefix returns the name at the beginning and its colon.
func (t template) prefix() string { return t.text[:strings.Index(t.text, ":")+1] }

// owner returns the owner that the claims make. A claim cannot contain the character that follows it in the template, so that
// no two lists of claims make one owner.
func (t template) owner(c claims) (string, error) {
	var owner strings.Builder
	for i, part := range t.parts {
		owner.WriteString(part.text)
		if part.claim == "" {
			break
		}
		value, ok := c.text(part.claim)
		if !ok || value == "" || strings.TrimLeft(value, allocator.OwnerChars) != "" {
			return "", errOwner
		}
		if i+1 < len(t.parts) && strings.Contains(value, t.parts[i+1].text[:1]) {
			return "", errOwner
		}
		owner.WriteString(value)
	}
	if owner.Len() > allocator.MaxOwner {
		return "", errOwner
	}
	return owner.String(), nil
}
