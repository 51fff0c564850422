package handlers

import (
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// render answers with a body of JSON.
func render(c *fiber.Ctx, status int, body []byte) error {
	renderAs(c, fiber.MIMEApplicationJSON, status, body)
	return nil
}

func renderAs(c *fiber.Ctx, contentType string, status int, body []byte) {
	c.Status(status)
	c.Response().Header.SetContentType(contentType)
	c.Response().SetBodyRaw(append(body, '\n')) // a terminal's next prompt begins on a line of its own
}

// encode returns the JSON of a body; what is not UTF-8 in it is replaced.
func encode(body any) []byte {
	b, err := json.Marshal(body, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err) // no body is of a type that has no JSON
	}
	return b
}

// Offers and allocations are on the way of most calls, and appended by hand: with room from the start that takes a quarter of what an
// encoder does. Names, secrets and times need no escaping.

// bodySize is the room for an offer or an allocation, which is what most take.
const bodySize = 384

// listOf returns the JSON of a list.
func listOf[T any](items []T, appendItem func([]byte, T) []byte) []byte {
	b := append(make([]byte, 0, 2+bodySize*len(items)), '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, item)
	}
	return append(b, ']')
}

// itemOf returns the JSON of one.
func itemOf[T any](item T, appendItem func([]byte, T) []byte) []byte {
	return appendItem(make([]byte, 0, bodySize), item)
}

func appendOffer(b []byte, o allocator.Offer) []byte {
	b = append(b, `{"service":"`...)
	b = append(b, o.Service...)
	b = append(b, `","name":"`...)
	b = append(b, o.Name...)
	b = append(b, `","port":`...)
	b = strconv.AppendInt(b, int64(o.Port), 10)
	b = appendCount(b, o.Count)
	if o.Secret != "" {
		b = append(b, `,"secret":"`...)
		b = append(b, o.Secret...)
		b = append(b, '"')
	}
	b = append(b, `,"created":`...)
	b = appendTime(b, o.Created)
	b = append(b, `,"expires":`...)
	b = appendTime(b, o.Expires)
	if o.Lease != 0 {
		b = append(b, `,"lease":`...)
		b = appendSeconds(b, o.Lease)
	}
	return append(b, '}')
}

func appendAllocation(b []byte, a allocator.Allocation) []byte {
	b = append(b, `{"service":"`...)
	b = append(b, a.Service...)
	b = append(b, `","name":"`...)
	b = append(b, a.Name...)
	b = append(b, `","port":`...)
	b = strconv.AppendInt(b, int64(a.Port), 10)
	b = appendCount(b, a.Count)
	b = append(b, `,"created":`...)
	b = appendTime(b, a.Created)
	b = append(b, `,"fence":`...)
	b = strconv.AppendInt(b, a.Fence, 10)
	if !a.Expires.IsZero() {
		b = append(b, `,"expires":`...)
		b = appendTime(b, a.Expires)
	}
	if a.Secret != "" {
		b = append(b, `,"secret":"`...)
		b = append(b, a.Secret...)
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendCount appends how many ports in a row it is, where that is not the usual one.
func appendCount(b []byte, count int) []byte {
	if count > 1 {
		b = append(b, `,"count":`...)
		b = strconv.AppendInt(b, int64(count), 10)
	}
	return b
}

// timeFormat is that of a time in UTC: RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), timeFormat), '"')
}

// appendSeconds appends d, which is of whole milliseconds, as a number of seconds.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Milliseconds())/1000, 'f', -1, 64)
}

// linkNext says in the Link header where a list goes on, if it does.
func linkNext(c *fiber.Ctx, next string, limit int) {
	if next != "" {
		c.Set(fiber.HeaderLink, fmt.Sprintf(`<%s?limit=%d&cursor=%s>; rel="next"`, unescape(c.Path()), limit, next))
	}
}
