package allocator

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"portmaster/lua"
)

// The bounds of labels.
const (
	MaxLabels     = 16      // of an offer or an allocation
	MaxLabelValue = 256     // bytes of a value
	MaxLabelBytes = 2 << 10 // of all keys and values together
)

// Labels are the labels of an offer or an allocation, as JSON: an object of strings without white space, sorted by key, with escapes
// for quotation marks and backslashes only. "" is none. Two Labels are equal if they say the same.
type Labels string

// NewLabels returns labels by their keys. It does not check their bounds: a call does that.
func NewLabels(of map[string]string) Labels {
	if len(of) == 0 {
		return ""
	}
	b := []byte{'{'}
	for i, key := range slices.Sorted(maps.Keys(of)) {
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = jsontext.AppendQuote(b, key) // it replaces what is no UTF-8
		b, _ = jsontext.AppendQuote(append(b, ':'), of[key])
	}
	return Labels(append(b, '}'))
}

// Map returns the labels by their keys. What is no object of strings, which only a change made by hand leaves, has none.
func (l Labels) Map() (of map[string]string) {
	if l != "" && json.Unmarshal([]byte(l), &of) != nil {
		return nil
	}
	return of
}

// behind returns options of a request with the labels behind them, as scripts read them.
func (l Labels) behind(options string) string {
	if l == "" {
		return options
	}
	return options + " " + string(l)
}

var labelKey = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// labels checks the labels of a request.
func (f *faults) labels(field string, labels Labels) {
	if of := labels.Map(); NewLabels(of) != labels {
		f.add(field, "is not what NewLabels returns")
	} else {
		f.labelMap(field, of)
	}
}

func (f *faults) labelMap(field string, of map[string]string) {
	if len(of) > MaxLabels {
		f.add(field, "has %d labels; at most %d are allowed", len(of), MaxLabels)
		return
	}
	total := 0
	for _, key := range slices.Sorted(maps.Keys(of)) {
		total += len(key) + len(of[key])
		f.label(field, key, of[key])
	}
	if total > MaxLabelBytes {
		f.add(field, "has keys and values of %d bytes; at most %d are allowed", total, MaxLabelBytes)
	}
}

// label checks one label. The fault has no more of a wrong key than a key may be long.
func (f *faults) label(field, key, value string) {
	if !labelKey.MatchString(key) {
		f.add(field, "has the key %s: keys must be 1 to 63 of a-z 0-9 _, and begin with a letter", strconv.Quote(key[:min(len(key), MaxName)]))
		return
	}
	if len(value) > MaxLabelValue || strings.ContainsFunc(value, unicode.IsControl) {
		f.add(field, "has a wrong value for %s: values must be up to %d bytes of UTF-8 without control characters", key, MaxLabelValue)
	}
}

// ChangeLabels changes labels of an allocation in one step: it sets those that have a value, and removes those that have nil. holder is one
// of its ports or its holder's name. It returns ErrInvalid, also if the allocation would have too many labels, ErrServiceNotFound,
// ErrPortNotFound, ErrSecretMismatch, or ErrNotOwner.
func (a *Allocator) ChangeLabels(
	ctx context.Context, caller Caller, pool, service, holder, secret string, changes map[string]*string,
) (Allocation, error) {
	f := checkHolder(pool, service, holder)
	f.secret("secret", secret)
	set, gone := map[string]string{}, []any{}
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		value := changes[key]
		if value == nil {
			f.label("labels", key, "")
			gone = append(gone, key)
			continue
		}
		set[key] = *value
	}
	f.labelMap("labels", set)
	if len(changes) == 0 || len(changes) > MaxLabels {
		f.add("labels", "must have 1 to %d changes", MaxLabels)
	}
	if err := f.err(); err != nil {
		return Allocation{}, err
	}
	mustOwn := ""
	if !caller.IsOperator {
		mustOwn = caller.Owner
	}
	labels := NewLabels(set)
	if labels == "" {
		labels = "{}"
	}
	args := append([]any{service, holder, secret, mustOwn, string(labels)}, gone...)
	answer, err := a.write(ctx, a.keys.Pool(pool).Call(lua.ChangeLabels, service, "", args...))
	if err != nil {
		return Allocation{}, a.notGone(ctx, pool, err)
	}
	record, _ := recordOf(answer)
	return parseAllocation(service, record)
}
