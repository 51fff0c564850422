package handlers

import (
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// render answers with a body that was appended by one of the functions below. By hand an answer costs a tenth of what
// an encoder by reflection takes; names, secrets and times need no escaping.
func render(c *fiber.Ctx, status int, body []byte) error {
	c.Status(status)
	c.Response().Header.SetContentType(fiber.MIMEApplicationJSON)
	c.Response().SetBodyRaw(append(body, '\n')) // a terminal's next prompt begins on a line of its own
	return nil
}

func appendList[T any](b []byte, items []T, appendItem func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, item)
	}
	return append(b, ']')
}

func appendService(b []byte, s allocator.Service) []byte {
	b = append(b, `{"name":"`...)
	b = append(b, s.Name...)
	b = append(b, `","description":`...)
	b = appendString(b, s.Description)
	b = append(b, `,"start":`...)
	b = strconv.AppendInt(b, int64(s.Start), 10)
	b = append(b, `,"end":`...)
	b = strconv.AppendInt(b, int64(s.End), 10)
	b = append(b, `,"cooldown":`...)
	b = appendSeconds(b, s.Cooldown)
	b = append(b, `,"created":`...)
	b = appendTime(b, s.Created)
	b = append(b, `,"ports":{"total":`...)
	b = strconv.AppendInt(b, int64(s.Ports.Total), 10)
	b = append(b, `,"free":`...)
	b = strconv.AppendInt(b, int64(s.Ports.Free), 10)
	b = append(b, `,"offered":`...)
	b = strconv.AppendInt(b, int64(s.Ports.Offered), 10)
	b = append(b, `,"allocated":`...)
	b = strconv.AppendInt(b, int64(s.Ports.Allocated), 10)
	b = append(b, `,"cooling":`...)
	b = strconv.AppendInt(b, int64(s.Ports.Cooling), 10)
	b = append(b, `},"waiting":`...)
	b = strconv.AppendInt(b, int64(s.Waiting), 10)
	if len(s.Warnings) > 0 {
		b = append(b, `,"warnings":`...)
		b = appendList(b, s.Warnings, appendString)
	}
	return append(b, '}')
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

func appendPool(b []byte, p allocator.Pool) []byte {
	b = append(b, `{"name":"`...)
	b = append(b, p.Name...)
	b = append(b, '"')
	if p.Services >= 0 {
		b = append(b, `,"services":`...)
		b = strconv.AppendInt(b, int64(p.Services), 10)
	}
	return append(b, '}')
}

// appendTime appends t, which is in UTC, as RFC 3339 with milliseconds.
func appendTime(b []byte, t time.Time) []byte {
	return t.AppendFormat(b, `"2006-01-02T15:04:05.000Z"`)
}

// appendSeconds appends d, which is of whole milliseconds, as a number of seconds.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Milliseconds())/1000, 'f', -1, 64)
}
