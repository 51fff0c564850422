package allocator

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// record is an offer or an allocation as it is stored in Redis: a flat JSON object that lua/parts/record.lua wrote, whose texts need
// no escapes. It is not read by a JSON decoder, since every call reads one, and a decoder took a tenth of the server's time.
type record string

// recordOf takes the record out of a script's answer: it is alone if it is new, and in an array of one if the call was repeated and
// the record existed already.
func recordOf(answer any) (r record, created bool) {
	if repeated, ok := answer.([]any); ok && len(repeated) == 1 {
		text, _ := repeated[0].(string)
		return record(text), false
	}
	text, _ := answer.(string)
	return record(text), true
}

// text returns the field that stands behind `"field":"`.
func (r record) text(label string) (string, bool) {
	_, rest, found := strings.Cut(string(r), label)
	value, _, ended := strings.Cut(rest, `"`)
	return value, found && ended
}

// leased stands in place of an offer's record if the port is leased: the allocation's record says to whom.
const leased record = "leased"

// ofBlock reports whether this is not a record, but the number of the port that has it: the first of a block.
func (r record) ofBlock() bool { return r != "" && r[0] != '{' }

// count returns how many consecutive ports the record is about.
func (r record) count() int {
	if n, ok := r.number(`"count":`); ok {
		return int(n)
	}
	return 1
}

// owner returns the owner of what the record is about; "" if it has none.
func (r record) owner() string {
	owner, _ := r.text(`"owner":"`)
	return owner
}

// number returns the field that stands behind `"field":`.
func (r record) number(label string) (int64, bool) {
	_, rest, _ := strings.Cut(string(r), label)
	end := 0
	for end < len(rest) && '0' <= rest[end] && rest[end] <= '9' {
		end++
	}
	if end == 0 { // most records lack some field, and an error of strconv costs more than the rest
		return 0, false
	}
	n, err := strconv.ParseInt(rest[:end], 10, 64)
	return n, err == nil
}

// time returns the field that stands behind `"field":`, in Unix milliseconds.
func (r record) time(label string) (time.Time, bool) {
	n, ok := r.number(label)
	return time.UnixMilli(n).UTC(), ok
}

// cutLabels returns a record without the labels that stand behind it, and the labels. No record has a } but at its end.
func (r record) cutLabels() (record, Labels) {
	end := strings.IndexByte(string(r), '}') + 1
	return r[:end], Labels(r[end:])
}

// hasLabels reports whether what the record is about has labels.
func (r record) hasLabels() bool { return strings.Contains(string(r), `"labels":true`) }

// labelsIn returns the labels of an entry of the labels of a service, if they are of the hold that the record is about: the entry has its
// secret.
func (r record) labelsIn(entry string) Labels {
	rest, ok1 := strings.CutPrefix(entry, `{"secret":"`)
	secret, labels, ok2 := strings.Cut(rest, `","labels":`)
	if its, _ := r.text(`"secret":"`); !ok1 || !ok2 || its != secret || !strings.HasSuffix(labels, "}}") {
		return ""
	}
	return Labels(labels[:len(labels)-1])
}

func parseOffer(r record) (Offer, error) {
	r, labels := r.cutLabels()
	service, ok1 := r.text(`"service":"`)
	name, ok2 := r.text(`"name":"`)
	port, ok3 := r.number(`"port":`)
	created, ok4 := r.time(`"created":`)
	expires, ok5 := r.time(`"expires":`)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return Offer{}, malformed("an offer of", name)
	}
	offer := Offer{Service: service, Name: name, Port: int(port), Count: r.count(), Owner: r.owner(), Labels: labels, Created: created, Expires: expires}
	if lease, ok := r.number(`"lease":`); ok {
		offer.Lease = time.Duration(lease) * time.Millisecond
	}
	return offer, nil
}

func parseAllocation(service string, r record) (Allocation, error) {
	r, labels := r.cutLabels()
	name, ok1 := r.text(`"name":"`)
	port, ok2 := r.number(`"port":`)
	created, ok3 := r.time(`"created":`)
	fence, ok4 := r.number(`"fence":`)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return Allocation{}, malformed("an allocation of", service)
	}
	allocation := Allocation{
		Service: service, Name: name, Port: int(port), Count: r.count(), Owner: r.owner(), Labels: labels, Created: created, Fence: fence,
	}
	if expires, leased := r.time(`"expires":`); leased {
		allocation.Expires = expires
	}
	return allocation, nil
}

// toInt reads a number of a script's answer.
func toInt(v any) (int64, error) {
	if n, ok := v.(int64); ok {
		return n, nil
	}
	s, _ := v.(string)
	return strconv.ParseInt(s, 10, 64)
}

// flag tells a script whether something is so.
func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// malformed returns the error of a record in Redis that this program did not write.
func malformed(kind, name string) error {
	return fmt.Errorf("the record of %s %s in Redis is malformed", kind, name)
}
