package handlers

import (
	"errors"
	"math/big"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// duration is a time span of a body: a number of seconds, or a text such as "1d12h".
type duration time.Duration

// errDuration says what a duration must be.
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
		if negative { // out of bounds, which is more than to be none
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

// parseSeconds reads a time span of a query: as a text of a body, or as a number of seconds.
func parseSeconds(text string) (time.Duration, error) {
	if strings.Trim(text, "0123456789.") == "" {
		return parseSpan(text, "s")
	}
	return parseSpan(text, "")
}

// maxSpan is how long the text of a time span may be, in characters.
const maxSpan = 64

// The text of a time span, which openapi.yaml has as well: its parts, each a number and a unit, or 0.
var (
	spanPart = regexp.MustCompile(`([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)`)
	spanText = regexp.MustCompile(`^(0|(` + spanPart.String() + `)+)$`)
)

// units are those of a time span.
var units = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "μs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// parseSpan reads a time span such as "1d12h" or "1.5s", behind which unit is to be thought where it has none. It does so
// exactly or not at all: what is finer than a nanosecond or longer than a time.Duration is refused, lest it become something
// that is allowed.
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
