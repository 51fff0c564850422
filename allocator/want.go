package allocator

import (
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// The bounds of what a caller may want.
const (
	MaxWants = 100                 // of one call
	MaxCount = 100                 // consecutive ports of one want
	MaxPorts = 256                 // of one call
	MinLease = time.Second         // of an allocation
	MaxLease = 30 * 24 * time.Hour // of an allocation
)

// Want is what a caller wants: a port, or several in a row, under an instance name. What is zero is not wanted.
type Want struct {
	Name   string
	Secret string        // of the caller's own, which makes the call safe to repeat; where it is empty one is drawn
	Lease  time.Duration // how long the allocation lasts, MinLease to MaxLease, in whole milliseconds; for ever where it is 0
	Port   int           // that port and no other
	Prefer int           // that port, or any other where it is taken
	Count  int           // how many consecutive ports, up to MaxCount; one where it is 0

	drawn bool // the secret is none of the caller's own
}

// count is how many ports a want is for.
func (w Want) count() int { return max(w.Count, 1) }

// options are what the scripts are told of a want beside its name and secret: "" where that is nothing, "1" where it is just
// that the secret may be known already: it is the caller's own, or the call may be made again by this server.
func (w Want) options(again bool) string {
	known := again || !w.drawn
	switch {
	case w.Lease != 0 || w.Port != 0 || w.Prefer != 0 || w.Count != 0:
		return fmt.Sprintf("%s %d %d %d %d", flag(known), w.Lease.Milliseconds(), w.Port, w.Prefer, w.Count)
	case known:
		return "1"
	}
	return ""
}

// wants finds the faults of a call's wants, of the one that it has, or of its list, which may ask for so many ports in all.
func (f *faults) wants(wants []Want, many bool, most int) {
	if !many {
		f.want(wants[0], "", most)
		return
	}
	if len(wants) < 1 || len(wants) > MaxWants {
		f.add("body", "must list 1 to %d", MaxWants)
		return
	}
	names, secrets, ports, total := map[string]bool{}, map[string]bool{}, map[int]bool{}, 0
	for i, w := range wants {
		at := "[" + strconv.Itoa(i) + "]."
		f.want(w, at, most)
		total += w.count()
		if w.Name != "" && names[w.Name] {
			f.add(at+"name", "is given twice")
		}
		if w.Secret != "" && secrets[w.Secret] {
			f.add(at+"secret", "is given twice")
		}
		names[w.Name], secrets[w.Secret] = true, true
		f.apart(w, at, ports)
	}
	if total > most {
		f.add("body", "asks for %d ports, of %d at most in one call", total, most)
	}
}

// apart finds a port that an earlier want of the list has asked for as well.
func (f *faults) apart(w Want, at string, ports map[int]bool) {
	if w.Port <= 0 {
		return
	}
	for port := w.Port; port < w.Port+min(w.count(), MaxCount); port++ {
		if ports[port] {
			f.add(at+"port", "is given twice")
			return
		}
		ports[port] = true
	}
}

// want finds the faults of one want, whose fields are named after at.
func (f *faults) want(w Want, at string, most int) {
	f.instance(at+"name", w.Name)
	if w.Secret != "" {
		f.secret(at+"secret", w.Secret)
	}
	f.lease(at+"lease", w.Lease)
	f.port(at+"port", w.Port)
	f.port(at+"prefer", w.Prefer)
	if most = min(most, MaxCount); w.Count < 0 || w.Count > most {
		f.add(at+"count", "must lie within 1-%d", most)
	}
	if w.Prefer != 0 && w.Port != 0 {
		f.add(at+"prefer", "makes no sense with port")
	}
	if w.Prefer != 0 && w.Count > 1 {
		f.add(at+"prefer", "makes no sense with count")
	}
}

func (f *faults) lease(field string, lease time.Duration) {
	if lease != 0 {
		f.duration(field, lease, MinLease, "1s-30d")
	}
}

func (f *faults) port(field string, port int) {
	if port < 0 || port > 65535 {
		f.add(field, "must lie within 1-65535")
	}
}

// wait checks how long a call would wait in line.
func (f *faults) wait(wait, longest time.Duration, wants []Want) {
	if wait < 0 || wait > longest {
		f.add("wait", "must lie within 0s-%s", longest)
	}
	for _, w := range wants {
		if wait > 0 && w.Port != 0 {
			f.add("wait", "makes no sense with port: only the next port that comes free can be waited for")
			return
		}
	}
}

// draw gives each want a secret that has none.
func draw(wants []Want) {
	for i := range wants {
		if wants[i].Secret == "" {
			wants[i].Secret, wants[i].drawn = uuid.NewString(), true
		}
	}
}
