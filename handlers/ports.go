package handlers

import (
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// listAllocations: GET /services/{service}/ports
func (s *Server) listAllocations(c *fiber.Ctx) error {
	cursor, limit := page(c)
	allocations, next, err := s.allocator.Allocations(c.UserContext(), pool(c), param(c, "service"), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, appendList(nil, allocations, appendAllocation))
}

// readAllocation: GET /services/{service}/ports/{port or name}
func (s *Server) readAllocation(c *fiber.Ctx) error {
	allocation, err := s.allocator.Allocation(c.UserContext(), pool(c), param(c, "service"), param(c, "port"))
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderETag, `"`+strconv.FormatInt(allocation.Fence, 10)+`"`)
	return render(c, fiber.StatusOK, appendAllocation(nil, allocation))
}

// release: DELETE /services/{service}/ports/{port or name}
func (s *Server) release(c *fiber.Ctx) error {
	if err := decodeNothing(c); err != nil {
		return err
	}
	fences, err := ifMatch(c.Get(fiber.HeaderIfMatch))
	if err != nil {
		return err
	}
	if err := s.allocator.Release(c.UserContext(), pool(c), param(c, "service"), param(c, "port"), fences...); err != nil {
		return err
	}
	return c.SendStatus(fiber.StatusNoContent)
}

// ifMatch reads the fences that an If-Match header lists: none where it is absent or "*", which match any allocation.
func ifMatch(header string) (fences []int64, err error) {
	if header == "" || header == "*" {
		return nil, nil
	}
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		fence, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
		if err != nil || len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
			return nil, allocator.Invalid(allocator.FieldError{Field: "If-Match", Detail: `must list ETags that a GET gave, such as "17"`})
		}
		fences = append(fences, fence)
	}
	return fences, nil
}
