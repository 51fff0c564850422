package handlers

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// labels are the labels in a body.
type labels map[string]string

// errLabels is the error of anything else.
var errLabels = errors.New(`must be a JSON object of strings, such as {"job":"4711"}`)

// UnmarshalJSONFrom reads an object of strings.
func (l *labels) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	return labelsFrom(from, (*map[string]string)(l))
}

// labelsFrom reads an object. A fault in it is one of the field.
func labelsFrom[T any](from *jsontext.Decoder, to *map[string]T) error {
	err := json.UnmarshalDecode(from, to)
	if _, ok := errors.AsType[*json.SemanticError](err); ok {
		return errLabels
	}
	return err
}

// labelChanges are the labels in a body that changes some: null removes one.
type labelChanges map[string]*string

// UnmarshalJSONFrom reads an object of strings and nulls.
func (l *labelChanges) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	return labelsFrom(from, (*map[string]*string)(l))
}

// labelsBody is the body that changes labels.
type labelsBody struct {
	Secret string       `json:"secret"`
	Labels labelChanges `json:"labels"`
}

// changeLabels: PATCH /services/{service}/ports/{port or name}
func (s *Server) changeLabels(c *fiber.Ctx) error {
	s.audit.holder(c, holder(c))
	var body labelsBody
	if err := decode(c, &body, "labels"); err != nil {
		return err
	}
	allocation, err := s.allocator.ChangeLabels(c.UserContext(), caller(c), pool(c), param(c, "service"), holder(c), body.Secret, body.Labels)
	if err != nil {
		return err
	}
	s.audit.allocated(c, []allocator.Allocation{allocation}, true)
	setETag(c, allocation)
	return render(c, fiber.StatusOK, itemOf(pool(c), allocation, appendAllocation))
}
