package handlers

import (
	"strconv"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// readMap: GET /services/{service}/map
func (s *Server) readMap(c *fiber.Ctx) error {
	cursor, limit := page(c)
	if !c.Context().QueryArgs().Has("limit") {
		limit = allocator.MaxMapped
	}
	m, next, err := s.allocator.Map(c.UserContext(), pool(c), param(c, "service"), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, appendMap(make([]byte, 0, 128+entrySize*len(m.Entries)), m))
}

// entrySize is the size of most entries of a map.
const entrySize = 160

func appendMap(b []byte, m allocator.PortMap) []byte {
	b = append(b, `{"service":"`...)
	b = append(b, m.Service...)
	b = append(b, `","time":`...)
	b = appendTime(b, m.Time)
	b = appendRange(append(b, ','), m.Start, m.End)
	b = appendRanges(b, m.Ranges)
	b = append(b, `,"ports":[`...)
	for i, e := range m.Entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEntry(b, e)
	}
	return append(b, ']', '}')
}

func appendEntry(b []byte, e allocator.MapEntry) []byte {
	b = appendRange(append(b, '{'), e.Start, e.End)
	b = append(b, `,"state":"`...)
	b = append(b, e.State...)
	b = append(b, '"')
	if e.Name != "" {
		b = append(b, `,"name":"`...)
		b = append(b, e.Name...)
		b = append(b, '"')
		b = appendOwner(b, e.Owner)
		b = append(b, `,"created":`...)
		b = appendTime(b, e.Created)
	}
	if e.Draining {
		b = append(b, `,"draining":true`...)
	}
	if !e.Until.IsZero() {
		b = append(b, `,"until":`...)
		b = appendTime(b, e.Until)
	}
	return append(b, '}')
}

// appendRanges appends the ranges of a service that has several.
func appendRanges(b []byte, ranges []allocator.Range) []byte {
	for i, r := range ranges {
		if i == 0 {
			b = append(b, `,"ranges":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(appendRange(append(b, '{'), r.Start, r.End), '}')
	}
	if len(ranges) > 0 {
		b = append(b, ']')
	}
	return b
}

func appendRange(b []byte, start, end int) []byte {
	b = append(b, `"start":`...)
	b = strconv.AppendInt(b, int64(start), 10)
	b = append(b, `,"end":`...)
	return strconv.AppendInt(b, int64(end), 10)
}
