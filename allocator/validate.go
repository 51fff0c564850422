package allocator

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The longest name and description, in bytes.
const (
	MaxName        = 64
	MaxDescription = 256
)

const nameRule = "must be 1 to 64 of A-Z a-z 0-9 . _ -, and begin and end with a letter or digit"

// faults gathers what is wrong with an input, so that one error can list it all.
type faults []FieldError

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, FieldError{field, fmt.Sprintf(format, args...)})
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return Invalid(f...)
}

// name checks the name of a pool or a service: [A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?
func (f *faults) name(field, name string) {
	if name == "" {
		f.add(field, "is required")
	} else if !validName(name) {
		f.add(field, nameRule)
	}
}

// instance checks the name of a holder: as name, and not all digits, since that would read as a port.
func (f *faults) instance(field, name string) {
	f.name(field, name)
	if name != "" && strings.Trim(name, "0123456789") == "" {
		f.add(field, "must not be all digits: it would read as a port")
	}
}

// secret checks that a secret is a random UUID in its canonical form, and keeps it out of the fault. The other versions, and
// the nil UUID, can be guessed.
func (f *faults) secret(field, secret string) {
	id, err := uuid.Parse(secret)
	if err != nil || id.String() != secret || id.Variant() != uuid.RFC4122 || id.Version() != 4 && id.Version() != 7 {
		f.add(field, "must be a random UUID (version 4 or 7) in lower case, such as 6f8ffc86-d98a-49ba-848a-a7cbaaea9360")
	}
}

func (f *faults) description(description string) {
	if n := len(description); n > MaxDescription {
		f.add("description", "has %d bytes, of %d at most", n, MaxDescription)
	}
}

// duration checks one that Redis is to keep, in milliseconds: from shortest to MaxLease, which in words is within.
func (f *faults) duration(field string, d, shortest time.Duration, within string) {
	if d < shortest || d > MaxLease {
		f.add(field, "must lie within %s", within)
	} else if d%time.Millisecond != 0 {
		f.add(field, "must be of whole milliseconds")
	}
}

func (f *faults) portRange(start, end, low, high int) {
	if start < low || start > high {
		f.add("start", "must lie within %d-%d", low, high)
	}
	if end < low || end > high {
		f.add("end", "must lie within %d-%d", low, high)
	}
	if start > end {
		f.add("end", "must not be below start")
	}
}

func validName(name string) bool {
	if len(name) > MaxName || !alphanumeric(name[0]) || !alphanumeric(name[len(name)-1]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
