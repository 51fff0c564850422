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
	c.Response().SetBodyRaw(append(body, '\n')) // so that a terminal's next prompt begins on a new line
}

// encode returns the JSON of a body. It replaces invalid UTF-8.
func encode(body any) []byte {
	b, err := json.Marshal(body, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err) // every body has a type that can be encoded
	}
	return b
}

// Offers and allocations are in the answers to most calls, and written by hand: into a buffer of sufficient size that takes
// a quarter of an encoder's time. Names, secrets and times need no escaping. Their pool is that of the request's path.

// bodySize is the size of a buffer that has room for most offers and allocations.
const bodySize = 448

// listOf returns the JSON of a list of items of a pool.
func listOf[T any](pool string, items []T, appendItem func([]byte, string, T) []byte) []byte {
	b := append(make([]byte, 0, 2+bodySize*len(items)), '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, pool, item)
	}
	return append(b, ']')
}

// itemOf returns the JSON of a single item of a pool.
func itemOf[T any](pool string, item T, appendItem func([]byte, string, T) []byte) []byte {
	return appendItem(make([]byte, 0, bodySize), pool, item)
}

// appendPlace begins an object with its pool and its service. What follows begins behind the service's name.
func appendPlace(b []byte, pool, service string) []byte {
	b = append(b, `{"pool":"`...)
	b = append(b, pool...)
	b = append(b, `","service":"`...)
	return append(b, service...)
}

func appendOffer(b []byte, pool string, o allocator.Offer) []byte {
	b = appendPlace(b, pool, o.Service)
	b = append(b, `","name":"`...)
	b = append(b, o.Name...)
	b = append(b, `","port":`...)
	b = strconv.AppendInt(b, int64(o.Port), 10)
	b = appendCount(b, o.Count)
	b = appendOwner(b, o.Owner)
	b = appendLabels(b, o.Labels)
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

func appendAllocation(b []byte, pool string, a allocator.Allocation) []byte {
	b = appendPlace(b, pool, a.Service)
	b = append(b, `","name":"`...)
	b = append(b, a.Name...)
	b = append(b, `","port":`...)
	b = strconv.AppendInt(b, int64(a.Port), 10)
	b = appendCount(b, a.Count)
	b = appendOwner(b, a.Owner)
	b = appendLabels(b, a.Labels)
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

// appendCount appends the number of consecutive ports if there is more than one.
func appendCount(b []byte, count int) []byte {
	if count > 1 {
		b = append(b, `,"count":`...)
		b = strconv.AppendInt(b, int64(count), 10)
	}
	return b
}

// appendOwner appends the owner if there is one.
func appendOwner(b []byte, owner string) []byte {
	if owner != "" {
		b = append(b, `,"owner":"`...)
		b = append(b, owner...)
		b = append(b, '"')
	}
	return b
}

// appendLabels appends the labels if there are any.
func appendLabels(b []byte, labels allocator.Labels) []byte {
	if labels != "" {
		b = append(append(b, `,"labels":`...), labels...)
	}
	return b
}

// timeFormat is RFC 3339 with milliseconds, for a time in UTC.
const timeFormat = "2006-01-02T15:04:05.000Z"

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), timeFormat), '"')
}

// appendSeconds appends d as a number of seconds. d is a whole number of milliseconds.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Milliseconds())/1000, 'f', -1, 64)
}

// linkNext sets the Link header to the next page of a list, if there is one.
func linkNext(c *fiber.Ctx, next string, limit int) {
	if next == "" {
		return
	}
	query := fmt.Sprintf("limit=%d&cursor=%s", limit, next) + filters(c)
	c.Set(fiber.HeaderLink, fmt.Sprintf(`<%s%s?%s>; rel="next"`, prefix(c), unescape(c.Path()), query))
	c.Set(fiber.HeaderVary, headerPrefix) // a cache keeps it for those with the same prefix
}
