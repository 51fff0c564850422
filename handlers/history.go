package handlers

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// history: GET /services/{service}/history
func (s *Server) history(c *fiber.Ctx) error {
	filter, err := historyFilter(c)
	if err != nil {
		return err
	}
	cursor, limit := page(c)
	events, next, err := s.allocator.History(c.UserContext(), pool(c), param(c, "service"), filter, cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, listOf(pool(c), events, appendEvent))
}

// historyFilter reads which events a request is about.
func historyFilter(c *fiber.Ctx) (filter allocator.HistoryFilter, err error) {
	var faults []allocator.FieldError
	if text := c.Query("port"); text != "" {
		port, err := strconv.Atoi(text)
		if err != nil || strconv.Itoa(port) != text {
			faults = append(faults, allocator.FieldError{Field: "port", Detail: "must be a number within 1-65535"})
		}
		filter.Port = &port
	}
	for _, each := range []struct {
		field string
		to    *time.Time
	}{{"since", &filter.Since}, {"until", &filter.Until}, {"at", &filter.At}} {
		if text := c.Query(each.field); text != "" {
			*each.to, err = time.Parse(time.RFC3339, text)
			if err != nil || !rfc3339.MatchString(text) { // which is stricter
				faults = append(faults, allocator.FieldError{Field: each.field, Detail: "must be a time such as 2026-11-22T15:56:21Z (RFC 3339)"})
			}
		}
	}
	if faults != nil {
		return filter, allocator.Invalid(faults...)
	}
	filter.Name, filter.Owner = strings.Clone(c.Query("name")), strings.Clone(c.Query("owner"))
	return filter, nil
}

// rfc3339 matches the times of a query.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$`)

// filters returns the query of a request without what says which page it is about, to be added to that of another page.
func filters(c *fiber.Ctx) string {
	given, err := url.ParseQuery(string(c.Request().URI().QueryString()))
	if err != nil {
		return "" // strict has refused it
	}
	text := ""
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if name != "limit" && name != "cursor" {
			text += "&" + name + "=" + url.QueryEscape(given.Get(name))
		}
	}
	return text
}

// appendEvent appends the JSON of an event. Only the id of a request may need escapes.
func appendEvent(b []byte, pool string, e allocator.Event) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, e.ID...)
	b = append(b, `","time":`...)
	b = appendTime(b, e.Time)
	b = append(b, `,"event":"`...)
	b = append(b, e.Kind...)
	b = append(b, `","pool":"`...)
	b = append(b, pool...)
	b = append(b, `","service":"`...)
	b = append(b, e.Service...)
	b = append(b, '"')
	if e.Name != "" {
		b = append(b, `,"name":"`...)
		b = append(b, e.Name...)
		b = append(b, '"')
	}
	b = appendNumber(b, `,"port":`, int64(e.Port))
	b = appendCount(b, e.Count)
	b = appendNumber(b, `,"fence":`, e.Fence)
	b = appendOwner(b, e.Owner)
	if e.RequestID != "" {
		b = append(b, `,"request_id":`...)
		b, _ = jsontext.AppendQuote(b, e.RequestID)
	}
	b = appendNumber(b, `,"start":`, int64(e.Start))
	b = appendNumber(b, `,"end":`, int64(e.End))
	b = appendRanges(b, e.Ranges)
	b = appendTimeIfAny(b, `,"until":`, e.Until)
	b = appendTimeIfAny(b, `,"expired":`, e.Expired)
	return append(b, '}')
}

// appendNumber appends a field unless it is zero.
func appendNumber(b []byte, label string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(b, label...), n, 10)
}

// appendTimeIfAny appends a field unless it is zero.
func appendTimeIfAny(b []byte, label string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendTime(append(b, label...), t)
}
