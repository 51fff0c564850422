package handlers

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"portmaster/allocator"
)

// pickField is an allocator.Pick in a body, where PickRested is "rested".
type pickField allocator.Pick

// UnmarshalJSONFrom reads a string.
func (p *pickField) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	var text string
	err := json.UnmarshalDecode(from, &text)
	switch text {
	case "rested":
		*p = pickField(allocator.PickRested)
	case "":
		*p = "none" // which is not allowed
	default:
		*p = pickField(text)
	}
	return err
}
