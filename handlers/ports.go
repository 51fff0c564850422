package handlers

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// claim: POST /services/{service}/ports
func (s *Server) claim(c *fiber.Ctx) error {
	a, err := s.readAcquisition(c)
	if err != nil {
		return err
	}
	defer a.stop()
	allocations, created, err := s.allocator.Claim(a.ctx, caller(c), pool(c), param(c, "service"), a.requests, a.wait)
	s.metrics.quotas.note(c, err)
	if err != nil {
		return a.fault(err)
	}
	s.audit.allocated(c, claimed(allocations, created), created)
	if a.isList {
		return render(c, statusCreated(created), listOf(pool(c), allocations, appendAllocation))
	}
	locate(c, allocations[0])
	return render(c, statusCreated(created), itemOf(pool(c), allocations[0], appendAllocation))
}

// claimed returns what a claim has to answer for: not the existing allocations beside new ones, which another call has claimed.
func claimed(allocations []allocator.Allocation, created bool) []allocator.Allocation {
	if !created {
		return allocations
	}
	return slices.DeleteFunc(slices.Clone(allocations), func(a allocator.Allocation) bool { return a.Secret == "" })
}

// locate sets the Location header to the path of an allocation.
func locate(c *fiber.Ctx, a allocator.Allocation) {
	c.Set(fiber.HeaderLocation, base(c)+"/services/"+a.Service+"/ports/"+strconv.Itoa(a.Port))
}

// listAllocations: GET /services/{service}/ports
func (s *Server) listAllocations(c *fiber.Ctx) error {
	cursor, limit := page(c)
	allocations, next, err := s.allocator.Allocations(c.UserContext(), pool(c), param(c, "service"), filter(c), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, listOf(pool(c), allocations, appendAllocation))
}

// readAllocation: GET /services/{service}/ports/{port or name}
func (s *Server) readAllocation(c *fiber.Ctx) error {
	allocation, err := s.allocator.Allocation(c.UserContext(), pool(c), param(c, "service"), holder(c))
	if err != nil {
		return err
	}
	setETag(c, allocation)
	return render(c, fiber.StatusOK, itemOf(pool(c), allocation, appendAllocation))
}

// setETag sets the ETag of an allocation: its fence, quoted.
func setETag(c *fiber.Ctx, a allocator.Allocation) {
	c.Set(fiber.HeaderETag, `"`+strconv.FormatInt(a.Fence, 10)+`"`)
}

// renewBody is the body that renews a lease.
type renewBody struct {
	Secret string    `json:"secret"`
	Lease  *duration `json:"lease"`
}

// renew: POST /services/{service}/ports/{port or name}/renew
func (s *Server) renew(c *fiber.Ctx) error {
	s.audit.holder(c, holder(c))
	var body renewBody
	if err := decode(c, &body); err != nil {
		return err
	}
	allocation, err := s.allocator.Renew(c.UserContext(), caller(c), pool(c), param(c, "service"), holder(c), body.Secret, (*time.Duration)(body.Lease))
	if err != nil {
		return err
	}
	s.audit.allocated(c, []allocator.Allocation{allocation}, true)
	setETag(c, allocation)
	return render(c, fiber.StatusOK, itemOf(pool(c), allocation, appendAllocation))
}

// releaseMatching: DELETE /services/{service}/ports?owner=&name=&name_prefix=&label=
func (s *Server) releaseMatching(c *fiber.Ctx) error {
	if err := decodeAny(c, &struct{}{}); err != nil {
		return err
	}
	released, err := s.allocator.ReleaseMatching(c.UserContext(), caller(c), pool(c), param(c, "service"), filter(c))
	s.audit.allocated(c, released, true)
	if err != nil {
		return err
	}
	return render(c, fiber.StatusOK, append(strconv.AppendInt([]byte(`{"released":`), int64(len(released)), 10), '}'))
}

// headerSecret is the header with the secret of the allocation to release.
const headerSecret = "Portmaster-Secret"

// release: DELETE /services/{service}/ports/{port or name}?reason=
func (s *Server) release(c *fiber.Ctx) error {
	if err := decodeAny(c, &struct{}{}); err != nil {
		return err
	}
	proof, err := proofOf(c)
	if err != nil {
		return err
	}
	audit := s.releasing(c, proof)
	if !c.Context().QueryArgs().Has("reason") {
		err = s.allocator.Release(c.UserContext(), caller(c), pool(c), param(c, "service"), holder(c), proof)
	} else {
		err = s.releaseInUse(c, proof)
	}
	if err != nil {
		return err
	}
	audit()
	return c.SendStatus(fiber.StatusNoContent)
}

// releaseInUse releases an allocation for the reason that the query gives.
func (s *Server) releaseInUse(c *fiber.Ctx, proof allocator.Proof) error {
	if c.Query("reason") != inUse {
		return errReason
	}
	released, err := s.allocator.ReleaseInUse(c.UserContext(), caller(c), pool(c), param(c, "service"), holder(c), proof)
	if released && err == nil {
		s.metrics.inUse.Inc()
	}
	return err
}

// proofOf reads the headers that say which allocation to release. An empty secret is refused: its sender has lost the real
// one, and would release without proof.
func proofOf(c *fiber.Ctx) (proof allocator.Proof, err error) {
	proof.Fences, err = ifMatch(c.Request().Header.PeekAll(fiber.HeaderIfMatch))
	if err != nil {
		return allocator.Proof{}, err
	}
	switch secrets := c.Request().Header.PeekAll(headerSecret); {
	case len(secrets) == 0:
	case len(secrets) > 1 || len(secrets[0]) == 0:
		return allocator.Proof{}, allocator.Invalid(allocator.FieldError{Field: headerSecret, Detail: "must be one UUID, or absent"})
	default:
		proof.Secret = string(secrets[0])
	}
	return proof, nil
}

// ifMatch reads the fences listed in all If-Match headers together. It returns none, which matches any allocation, if there
// is no header or it is "*".
func ifMatch(lines [][]byte) (fences []int64, err error) {
	header := string(bytes.Join(lines, []byte(",")))
	if len(lines) == 0 || header == "*" {
		return nil, nil
	}
	for tag := range strings.SplitSeq(header, ",") {
		digits := etag.FindStringSubmatch(strings.Trim(tag, " \t"))
		if digits == nil {
			return nil, allocator.Invalid(allocator.FieldError{Field: "If-Match", Detail: `must be *, or a list of ETags such as "17"`})
		}
		fence, _ := strconv.ParseInt(digits[1], 10, 64)
		fences = append(fences, fence)
	}
	return fences, nil
}

// etag matches what setETag writes, with at most as many digits as surely fit an int64.
var etag = regexp.MustCompile(`^"(0|[1-9][0-9]{0,17})"$`)
