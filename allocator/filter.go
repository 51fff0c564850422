package allocator

import (
	"regexp"
	"strings"
)

// Filter says which offers or allocations of a service are meant: those for which all fields hold that are not "".
type Filter struct {
	Owner      string // whose they are
	Name       string // the instance name
	NamePrefix string // what the instance name begins with
	Label      string // a label that they have: KEY=VALUE
}

// isAll reports whether nothing is left out.
func (of Filter) isAll() bool { return of == Filter{} }

// namePrefix matches what an instance name may begin with.
var namePrefix = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:@+~=-]{0,127}$`)

// filter checks a filter.
func (f *faults) filter(of Filter) {
	f.owner("owner", of.Owner)
	if of.Name != "" {
		f.instance("name", of.Name)
	}
	if of.NamePrefix != "" && !namePrefix.MatchString(of.NamePrefix) {
		f.add("name_prefix", "must be 1 to %d of A-Z a-z 0-9 . _ - / : @ + ~ =, and begin with a letter or digit", MaxInstanceName)
	}
	if of.Label == "" {
		return
	}
	if key, value, isPair := strings.Cut(of.Label, "="); isPair {
		f.label("label", key, value)
	} else {
		f.add("label", "must be KEY=VALUE, such as job=4711")
	}
}

// matchesRecord reports whether a record is meant, as far as that can be told without the labels.
func (of Filter) matchesRecord(r record) bool {
	if of.isAll() {
		return true
	}
	name, _ := r.text(`"name":"`)
	return (of.Owner == "" || r.owner() == of.Owner) && (of.Name == "" || name == of.Name) &&
		strings.HasPrefix(name, of.NamePrefix) && (of.Label == "" || r.hasLabels())
}

// matchesLabels reports whether the labels behind a record are meant.
func (of Filter) matchesLabels(r record) bool {
	if of.Label == "" {
		return true
	}
	key, value, _ := strings.Cut(of.Label, "=")
	_, labels := r.cutLabels()
	found, ok := labels.Map()[key]
	return ok && found == value
}
