package handlers

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// labels are the labels in a body.
type labels map[string]string

// errLabels is the error of anything else.
var errLabels = errors.New(`must be a JSON object of strings, such as {"job":"4711"}`)

// UnmarshalJSONFrom reads an object of strings. A fault in it is one of the field.
func (l *labels) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	err := json.UnmarshalDecode(from, (*map[string]string)(l))
	if _, ok := errors.AsType[*json.SemanticError](err); ok {
		return errLabels
	}
	return err
}
