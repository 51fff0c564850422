package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of limits.
const (
	maxHeld = 65_535
	maxRate = 1_000_000
)

// NewToken returns a new random token: pm_ and the base64url of 32 bytes.
func NewToken() string {
	var random [32]byte
	rand.Read(random[:]) // never fails
	return "pm_" + base64.RawURLEncoding.EncodeToString(random[:])
}

// Line returns the line of the tokens file for a token, without a line break. Options are as in the file: "-" for none. Its
// error names the field that is wrong.
func Line(name string, role Role, scope, options, token string) (string, error) {
	sum := sha256.Sum256([]byte(token))
	fields := []string{name, string(role), scope, options, hashPrefix + hex.EncodeToString(sum[:])}
	line := strings.Join(fields, " ")
	if _, _, err := parseLine(strings.Fields(line)); err != nil {
		return "", err
	}
	return line, nil
}

const hashPrefix = "sha256:"

// parseTokens reads a tokens file. Its error names the line and the field, and repeats nothing of the line: a token may have
// got into any field.
func parseTokens(text string) (map[digest]*Principal, error) {
	tokens := map[digest]*Principal{}
	lines := map[digest]int{}
	named := map[string]digest{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		p, sum, err := parseLine(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if tokens[sum] != nil {
			return nil, fmt.Errorf("line %d: sha256 is that of line %d", number, lines[sum])
		}
		if first, found := named[p.Name]; !found {
			named[p.Name] = sum
		} else if field := difference(p, tokens[first]); field != "" {
			return nil, fmt.Errorf("line %d: %s differs from that of line %d, which has the same name", number, field, lines[first])
		}
		tokens[sum], lines[sum] = p, number
	}
	return tokens, nil
}

// difference names the field in which two lines of one name contradict each other. Only expires is a property of the token
// and not of the principal.
func difference(a, b *Principal) string {
	switch {
	case a.Role != b.Role:
		return "role"
	case a.Scope.String() != b.Scope.String():
		return "scope"
	case a.Held != b.Held:
		return "held"
	case a.Rate != b.Rate:
		return "rate"
	}
	return ""
}

// parseLine reads the fields of a line.
func parseLine(fields []string) (*Principal, digest, error) {
	if len(fields) != 5 {
		return nil, digest{}, errors.New("must have five fields: name role scope options sha256:HEX")
	}
	p := &Principal{Name: fields[0], Owner: fields[0]}
	if len(p.Name) > maxName || strings.TrimLeft(p.Name, nameChars) != "" {
		return nil, digest{}, errors.New("name must be 1 to 64 of A-Z a-z 0-9 . _ -")
	}
	if err := p.Role.UnmarshalText([]byte(fields[1])); err != nil {
		return nil, digest{}, fmt.Errorf("role %w", err)
	}
	if err := p.Scope.UnmarshalText([]byte(fields[2])); err != nil {
		return nil, digest{}, fmt.Errorf("scope %w", err)
	}
	if err := p.parseOptions(fields[3]); err != nil {
		return nil, digest{}, err
	}
	text, found := strings.CutPrefix(fields[4], hashPrefix)
	sum, err := hex.DecodeString(text)
	if !found || err != nil || len(sum) != sha256.Size {
		return nil, digest{}, errors.New("sha256 must be sha256: and 64 hexadecimal digits")
	}
	return p, digest(sum), nil
}

// parseOptions reads held=200,rate=50,expires=2027-06-01, or - for none. A token expires at the end of that day in UTC.
func (p *Principal) parseOptions(text string) error {
	if text == "-" {
		return nil
	}
	seen := map[string]bool{}
	for option := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "held":
			p.Held, err = limit(value, maxHeld)
		case "rate":
			p.Rate, err = limit(value, maxRate)
		case "expires":
			var day time.Time
			if day, err = time.Parse(time.DateOnly, value); err != nil {
				err = errors.New("must be a day, such as 2027-06-01")
			}
			p.Expires = day.AddDate(0, 0, 1)
		default:
			return errors.New("options must be - or of held=N, rate=N and expires=YYYY-MM-DD, joined by commas")
		}
		if err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
		if seen[name] {
			return fmt.Errorf("%s is given twice", name)
		}
		seen[name] = true
	}
	return nil
}

// limit reads a whole number from 1 to highest.
func limit(text string, highest int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > highest {
		return 0, fmt.Errorf("must be a whole number from 1 to %d", highest)
	}
	return n, nil
}
