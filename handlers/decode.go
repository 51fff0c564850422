package handlers

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"mime"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// decode reads the JSON of a request's body into target. Unknown and duplicate fields, wrong types, trailing data and broken
// UTF-8 are an ErrInvalid that names the field, as is null but for the nullable fields and what
// is in them.
func decode(c *fiber.Ctx, target any, nullable ...string) error {
	if encoding := c.Get(fiber.HeaderContentEncoding); encoding != "" {
		return fiber.NewError(fiber.StatusUnsupportedMediaType, "the body must have no Content-Encoding")
	}
	if !isJSON(c.Get(fiber.HeaderContentType), c.Method() == fiber.MethodPatch) {
		return fiber.NewError(fiber.StatusUnsupportedMediaType, "the Content-Type must be application/json, in UTF-8")
	}
	return decodeJSON(c.Request().Body(), target, nullable...)
}

// decodeAny is decode for an optional body: an absent one is the same as {}.
func decodeAny(c *fiber.Ctx, target any) error {
	if len(c.Request().Body()) == 0 {
		return nil
	}
	return decode(c, target)
}

// mergePatch is the Content-Type of RFC 7396, which a PATCH may have.
const mergePatch = "application/merge-patch+json"

func isJSON(contentType string, isPatch bool) bool {
	if contentType == fiber.MIMEApplicationJSON {
		return true
	}
	kind, params, err := mime.ParseMediaType(contentType)
	charset, given := params["charset"]
	return err == nil && (kind == fiber.MIMEApplicationJSON || isPatch && kind == mergePatch) && (!given || strings.EqualFold(charset, "utf-8"))
}

func decodeJSON(body []byte, target any, nullable ...string) error {
	if len(body) == 0 {
		return allocator.Invalid(allocator.FieldError{Field: "body", Detail: "is required"})
	}
	if err := json.Unmarshal(body, target, json.RejectUnknownMembers(true)); err != nil {
		return allocator.Invalid(bodyFault(err, isList(body)))
	}
	if field, found := findNull(body, nullable...); found {
		return allocator.Invalid(allocator.FieldError{Field: field, Detail: "must not be null"})
	}
	return nil
}

// findNull returns the name of a field that is null, which the decoder treats as absent, and that may not be null.
func findNull(body []byte, nullable ...string) (field string, found bool) {
	if !bytes.Contains(body, []byte("null")) {
		return "", false
	}
	for d := jsontext.NewDecoder(bytes.NewReader(body)); ; {
		token, err := d.ReadToken()
		if err != nil {
			return "", false
		}
		if token.Kind() == 'n' {
			if field = fieldName(d.StackPointer(), isList(body)); !slices.Contains(nullable, field) {
				return field, true
			}
		}
	}
}

// bodyFault returns the field at which decoding failed, and why. list says whether the body is a list.
func bodyFault(err error, list bool) allocator.FieldError {
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		fault := allocator.FieldError{Field: fieldName(e.JSONPointer, list)}
		switch {
		case errors.Is(e.Err, json.ErrUnknownName):
			fault.Detail = "unknown field"
		case errors.Is(e.Err, errDuration), errors.Is(e.Err, errLabels):
			fault.Detail = e.Err.Error()
		case e.GoType != nil && e.GoType.Kind().String() == "struct":
			fault.Detail = "must be a JSON object"
		case e.GoType != nil:
			fault.Detail = fmt.Sprintf("must be %s", kindName(e.GoType.Kind().String()))
		default:
			fault.Detail = "has the wrong type"
		}
		return fault
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		fault := allocator.FieldError{Field: fieldName(e.JSONPointer, list), Detail: "is not valid JSON"}
		switch {
		case errors.Is(e.Err, jsontext.ErrDuplicateName):
			fault.Detail = "is given twice"
		case e.Err != nil && strings.Contains(e.Err.Error(), "UTF-8"):
			fault.Detail = "is not valid UTF-8"
		case e.Err != nil:
			fault.Detail = "is not valid JSON: " + e.Err.Error()
		}
		return fault
	}
	return allocator.FieldError{Field: "body", Detail: "is not valid JSON"}
}

// fieldName returns the name of the field that a JSON pointer points to, such as "name", in a list "[2].name", or "body" for
// the whole. Bodies are flat: anything deeper gets the name of the field that it is in.
func fieldName(pointer jsontext.Pointer, list bool) string {
	parts, item := slices.Collect(pointer.Tokens()), ""
	if list && len(parts) > 0 {
		item, parts = "["+parts[0]+"]", parts[1:]
	}
	if len(parts) == 0 || parts[0] == "" {
		return cmp.Or(item, "body")
	}
	field := parts[0][:min(len(parts[0]), allocator.MaxName)]
	if item != "" {
		return item + "." + field
	}
	return field
}

// isList reports whether a body is a JSON array, by its first character that is not white space.
func isList(body []byte) bool {
	for _, c := range body {
		switch c {
		case ' ', '\t', '\r', '\n':
		default:
			return c == '['
		}
	}
	return false
}

func kindName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"):
		return "a whole number"
	case kind == "string":
		return "a string"
	}
	return "a " + kind
}

// strict returns the handler of a route with a check of the query in front: a parameter that is unknown to the route, given
// twice, or without a value is an ErrInvalid.
func strict(r route) func(*Server, *fiber.Ctx) error {
	return func(s *Server, c *fiber.Ctx) error {
		if query := c.Request().URI().QueryString(); len(query) > 0 {
			if err := checkQuery(string(query), r.query); err != nil {
				return err
			}
		}
		return r.handle(s, c)
	}
}

func checkQuery(query string, known []string) error {
	given, err := url.ParseQuery(query)
	if err != nil {
		return allocator.Invalid(allocator.FieldError{Field: "query", Detail: "is malformed"})
	}
	var faults []allocator.FieldError
	for _, name := range slices.Sorted(maps.Keys(given)) {
		detail := ""
		switch {
		case !slices.Contains(known, name):
			detail = "unknown query parameter"
		case len(given[name]) > 1:
			detail = "is given twice"
		case given[name][0] == "":
			detail = "must not be empty"
		default:
			continue
		}
		faults = append(faults, allocator.FieldError{Field: cmp.Or(name[:min(len(name), allocator.MaxName)], "query"), Detail: detail})
	}
	if faults == nil {
		return nil
	}
	return allocator.Invalid(faults...)
}

// unescape decodes the percent-encoded characters of a path that need no encoding: by RFC 3986 (6.2.2.2) %2D is the same as -.
// Others stay encoded, and so the path has no valid name.
func unescape(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	return percentEncoded.ReplaceAllStringFunc(path, func(escape string) string {
		code, _ := strconv.ParseUint(escape[1:], 16, 8)
		if c := string(rune(code)); strings.Contains(unreserved, c) {
			return c
		}
		return escape
	})
}

const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

var percentEncoded = regexp.MustCompile("%[0-9A-Fa-f]{2}")

// duration is a time span in a body: a number of seconds, or a text such as "1d12h".
type duration time.Duration

// errDuration is the error of anything else.
var errDuration = errors.New(`must be seconds, such as 90 or 1.5, or a duration, such as "1h30m" or "30d"`)

// UnmarshalJSONFrom reads a number or a text.
func (d *duration) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	token, err := from.ReadToken()
	if err != nil {
		return err
	}
	var span time.Duration
	switch token.Kind() {
	case '0':
		number, negative := strings.CutPrefix(token.String(), "-")
		span, err = parseSpan(number, "s")
		if negative { // valid, but out of bounds: that is the better error
			span = -span
		}
	case '"':
		span, err = parseSpan(token.String(), "")
	default:
		err = errDuration
	}
	if err != nil {
		return errDuration
	}
	*d = duration(span)
	return nil
}

// parseSeconds reads a time span in a query: a number of seconds, or a text as in a body.
func parseSeconds(text string) (time.Duration, error) {
	if strings.Trim(text, "0123456789.") == "" {
		return parseSpan(text, "s")
	}
	return parseSpan(text, "")
}

// maxSpan is the length limit of the text of a time span, in characters.
const maxSpan = 64

// The text of a time span: parts of a number and a unit, or 0. openapi.yaml has the same patterns.
var (
	spanPart = regexp.MustCompile(`([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)`)
	spanText = regexp.MustCompile(`^(0|(` + spanPart.String() + `)+)$`)
)

// units are the units of a time span.
var units = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "μs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// parseSpan reads a time span such as "1d12h" or "1.5s". unit is appended to the text, for a number without one. The result
// is exact: a span finer than a nanosecond or longer than a time.Duration is refused, since rounding or overflow could make
// it valid.
func parseSpan(text, unit string) (time.Duration, error) {
	if utf8.RuneCountInString(text) > maxSpan || !spanText.MatchString(text+unit) {
		return 0, errDuration
	}
	sum := new(big.Rat)
	for _, part := range spanPart.FindAllStringSubmatch(text+unit, -1) {
		number, _ := new(big.Rat).SetString(part[1])
		sum.Add(sum, number.Mul(number, new(big.Rat).SetInt64(int64(units[part[2]]))))
	}
	if !sum.IsInt() || !sum.Num().IsInt64() {
		return 0, errDuration
	}
	return time.Duration(sum.Num().Int64()), nil
}
