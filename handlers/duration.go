package handlers

import (
	"errors"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// duration is a time span of a body: a number of seconds, or a text such as "1h30m".
type duration time.Duration

// errDuration says what a duration must be.
var errDuration = errors.New(`must be seconds, such as 90 or 1.5, or a duration, such as "1h30m"`)

// UnmarshalJSONFrom reads a number or a text.
func (d *duration) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	token, err := from.ReadToken()
	if err != nil {
		return err
	}
	var span time.Duration
	switch token.Kind() {
	case '0':
		span, err = seconds(token.String())
	case '"':
		span, err = time.ParseDuration(token.String())
	default:
		err = errDuration
	}
	if err != nil {
		return errDuration
	}
	*d = duration(span)
	return nil
}

// seconds reads a decimal number of seconds, exactly or not at all: what is finer than a nanosecond is refused, lest it
// be rounded to something that is allowed. As in the whole numbers of a body there is no exponent.
func seconds(number string) (time.Duration, error) {
	whole, fraction, _ := strings.Cut(number, ".")
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > len("999999999") {
		return 0, errDuration
	}
	return time.ParseDuration(whole + "." + fraction + "s")
}
