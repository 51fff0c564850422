package allocator

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"portmaster/lua"
)

// The longest name of a pool or a service, name of an instance, and description, in bytes.
const (
	MaxName         = 64
	MaxInstanceName = 128
	MaxDescription  = 256
)

const (
	nameRule         = "must be 1 to 64 of A-Z a-z 0-9 . _ -, and begin and end with a letter or digit"
	instanceNameRule = "must be 1 to 128 of A-Z a-z 0-9 . _ - / : @ + ~ =, and begin and end with a letter or digit"
)

// The characters of names beside letters and digits.
const (
	nameMarks         = "._-"
	instanceNameMarks = "._-/:@+~="
)

// faults collects what is wrong with an input, so that one error can list it all.
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
	} else if len(name) > MaxName || !isNameOf(nameMarks, name) {
		f.add(field, nameRule)
	}
}

// instance checks the name of a holder: [A-Za-z0-9]([A-Za-z0-9._/:@+~=-]{0,126}[A-Za-z0-9])? It may be all digits.
func (f *faults) instance(field, name string) {
	if name == "" {
		f.add(field, "is required")
	} else if len(name) > MaxInstanceName || !isNameOf(instanceNameMarks, name) {
		f.add(field, instanceNameRule)
	}
}

// secret checks that a secret is a random UUID in its canonical form. The other versions and the nil UUID can be guessed. The fault
// does not contain the secret.
func (f *faults) secret(field, secret string) {
	id, err := uuid.Parse(secret)
	if err != nil || id.String() != secret || id.Variant() != uuid.RFC4122 || id.Version() != 4 && id.Version() != 7 {
		f.add(field, "must be a random UUID (version 4 or 7) in lower case, such as 6f8ffc86-d98a-49ba-848a-a7cbaaea9360")
	}
}

func (f *faults) description(description string) {
	if n := len(description); n > MaxDescription {
		f.add("description", "has %d bytes; at most %d are allowed", n, MaxDescription)
	}
}

// checkDefinition returns the ranges of a definition, or what is wrong with it.
func (a *Allocator) checkDefinition(pool string, d Definition) ([]Range, error) {
	var f faults
	f.name("pool", pool)
	f.name("name", d.Name)
	f.description(d.Description)
	ranges := f.rangesOf(d, a.opts.PortMin, a.opts.PortMax)
	f.duration("cooldown", d.Cooldown, 0, "0s-30d")
	f.pick(d.Pick)
	f.leaseBounds(d)
	return ranges, f.err()
}

func (a *Allocator) checkAcquisition(c acquisition) error {
	f := checkService(c.pool, c.service)
	f.owner("owner", c.caller.Owner)
	f.requests(c.requests, a.opts.MaxPorts)
	f.existing(c)
	f.wait(c.wait.Longest, a.opts.MaxWait, c.requests)
	return f.err()
}

// requests finds the faults of a call's requests, which may ask for most ports in all.
func (f *faults) requests(requests []Request, most int) {
	if len(requests) < 1 || len(requests) > MaxRequests {
		f.add("body", "must list 1 to %d requests", MaxRequests)
		return
	}
	names, secrets, ports, total := map[string]bool{}, map[string]bool{}, map[int]bool{}, 0
	for i, r := range requests {
		at := "[" + strconv.Itoa(i) + "]."
		f.request(r, at, most)
		total += r.count()
		if r.Name != "" && names[r.Name] {
			f.add(at+"name", "is given twice")
		}
		if r.Secret != "" && secrets[r.Secret] {
			f.add(at+"secret", "is given twice")
		}
		names[r.Name], secrets[r.Secret] = true, true
		f.apart(r, at, ports)
	}
	if total > most && len(requests) > 1 {
		f.add("body", "asks for %d ports; one call may ask for at most %d", total, most)
	}
}

// existing finds offers for which an existing allocation is to do.
func (f *faults) existing(c acquisition) {
	for i, r := range c.requests {
		if r.Existing && c.script == lua.Offer {
			f.add("["+strconv.Itoa(i)+"].existing", "is only for a claim: an allocation cannot be offered")
		}
	}
}

// apart finds a port that an earlier request of the list asks for, too.
func (f *faults) apart(r Request, at string, ports map[int]bool) {
	if r.Port == nil || *r.Port < 1 {
		return
	}
	for port := *r.Port; port < *r.Port+min(r.count(), MaxCount); port++ {
		if ports[port] {
			f.add(at+"port", "is given twice")
			return
		}
		ports[port] = true
	}
}

// request finds the faults of one request. at stands before the names of its fields.
func (f *faults) request(r Request, at string, most int) {
	f.instance(at+"name", r.Name)
	if r.Secret != "" {
		f.secret(at+"secret", r.Secret)
	}
	f.lease(at+"lease", r.Lease)
	f.port(at+"port", r.Port)
	f.port(at+"prefer", r.Prefer)
	if most = min(most, MaxCount); r.Count != nil && (*r.Count < 1 || *r.Count > most) {
		f.add(at+"count", "must be within 1-%d", most)
	}
	f.align(r, at)
	f.labels(at+"labels", r.Labels)
	if r.Prefer != nil && r.Port != nil {
		f.add(at+"prefer", "cannot be combined with port")
	}
	if r.Prefer != nil && r.count() > 1 {
		f.add(at+"prefer", "cannot be combined with count")
	}
}

// align finds the faults of a port that must be a multiple.
func (f *faults) align(r Request, at string) {
	if r.Align == nil {
		return
	}
	if *r.Align < 2 || *r.Align > MaxAlign {
		f.add(at+"align", "must be within 2-%d", MaxAlign)
		return
	}
	if valueOf(r.Port)%*r.Align != 0 {
		f.add(at+"port", "must be a multiple of align")
	}
	if valueOf(r.Prefer)%*r.Align != 0 {
		f.add(at+"prefer", "must be a multiple of align")
	}
}

func (f *faults) lease(field string, lease *time.Duration) {
	if lease != nil {
		f.duration(field, *lease, MinLease, "1s-30d")
	}
}

func (f *faults) port(field string, port *int) {
	if port != nil && (*port < 1 || *port > 65535) {
		f.add(field, "must be within 1-65535")
	}
}

// wait checks how long a call may wait.
func (f *faults) wait(wait, longest time.Duration, requests []Request) {
	if wait < 0 || wait > longest {
		f.add("wait", "must be within 0s-%s", longest)
	}
	for _, r := range requests {
		if wait > 0 && r.Port != nil {
			f.add("wait", "cannot be combined with port: only the next port that comes free can be waited for")
			return
		}
	}
}

// duration checks a duration that Redis stores in milliseconds: from shortest to MaxLease. within is that range in words.
func (f *faults) duration(field string, d, shortest time.Duration, within string) {
	if d < shortest || d > MaxLease {
		f.add(field, "must be within %s", within)
	} else if d%time.Millisecond != 0 {
		f.add(field, "must be a whole number of milliseconds")
	}
}

func (f *faults) portRange(start, end, low, high int) {
	if start < low || start > high {
		f.add("start", "must be within %d-%d", low, high)
	}
	if end < low || end > high {
		f.add("end", "must be within %d-%d", low, high)
	}
	if start > end {
		f.add("end", "must not be below start")
	}
}

// cursor reads the cursor of a list: the number at which it continues.
func (f *faults) cursor(cursor string) int {
	if cursor == "" {
		return 0
	}
	n, err := strconv.Atoi(cursor)
	if err != nil || n < 0 {
		f.add("cursor", "is not a cursor that a list returned")
	}
	return n
}

func (f *faults) limit(limit int) {
	if limit < 1 || limit > MaxPage {
		f.add("limit", "must be within 1-%d", MaxPage)
	}
}

func checkService(pool, service string) (f faults) {
	f.name("pool", pool)
	f.name("service", service)
	return f
}

func checkSecret(pool, service, secret string) faults {
	f := checkService(pool, service)
	f.secret("secret", secret)
	return f
}

// checkHolder checks what an allocation is found by: one of its ports, if that is all digits, or its holder's name.
func checkHolder(pool, service, holder string) faults {
	f := checkService(pool, service)
	f.instance("port", holder)
	return f
}

// isNameOf reports whether a name that is not "" begins and ends with a letter or digit, and has nothing but these and marks.
func isNameOf(marks, name string) bool {
	if !alphanumeric(name[0]) || !alphanumeric(name[len(name)-1]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && strings.IndexByte(marks, c) < 0 {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
