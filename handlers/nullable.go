package handlers

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// nullable is a field that may be absent, or null, which takes the value away.
type nullable[T any] struct {
	given bool
	value *T // nil for null
}

// UnmarshalJSONFrom reads a value or null.
func (n *nullable[T]) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	n.given = true
	return json.UnmarshalDecode(from, &n.value)
}

// set changes a value if the field is given: null to zero.
func (n nullable[T]) set(to *T) {
	switch {
	case n.value != nil:
		*to = *n.value
	case n.given:
		*to = *new(T)
	}
}
