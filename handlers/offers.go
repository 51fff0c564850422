package handlers

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// offer: POST /services/{service}/offers
func (s *Server) offer(c *fiber.Ctx) error {
	a, err := s.readAcquisition(c)
	if err != nil {
		return err
	}
	defer a.stop()
	offers, created, err := s.allocator.Offer(a.ctx, caller(c), pool(c), param(c, "service"), a.requests, a.wait)
	s.metrics.quotas.note(c, err)
	if err != nil {
		return a.fault(err)
	}
	s.audit.offered(c, offers, created)
	if a.isList {
		return render(c, statusCreated(created), listOf(pool(c), offers, appendOffer))
	}
	c.Set(fiber.HeaderLocation, base(c)+"/services/"+offers[0].Service+"/offers/"+offers[0].Secret)
	return render(c, statusCreated(created), itemOf(pool(c), offers[0], appendOffer))
}

// listOffers: GET /services/{service}/offers
func (s *Server) listOffers(c *fiber.Ctx) error {
	cursor, limit := page(c)
	offers, next, err := s.allocator.Offers(c.UserContext(), pool(c), param(c, "service"), filter(c), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, listOf(pool(c), offers, appendOffer))
}

// readOffer: GET /services/{service}/offers/{secret}
func (s *Server) readOffer(c *fiber.Ctx) error {
	offer, err := s.allocator.OpenOffer(c.UserContext(), caller(c), pool(c), param(c, "service"), param(c, "secret"))
	if err != nil {
		return err
	}
	return render(c, fiber.StatusOK, itemOf(pool(c), offer, appendOffer))
}

// acceptBody is the body that accepts an offer.
type acceptBody struct {
	Lease *duration `json:"lease"`
}

// accept: POST /services/{service}/offers/{secret}/accept, and PUT /services/{service}/offers/{secret}
func (s *Server) accept(c *fiber.Ctx) error {
	var body acceptBody
	if err := decodeAny(c, &body); err != nil {
		return err
	}
	allocation, created, err := s.allocator.Accept(c.UserContext(), caller(c), pool(c), param(c, "service"), param(c, "secret"), (*time.Duration)(body.Lease))
	if err != nil {
		return err
	}
	s.audit.allocated(c, []allocator.Allocation{allocation}, created)
	locate(c, allocation)
	return render(c, statusCreated(created), itemOf(pool(c), allocation, appendAllocation))
}

// rejectBody is the body that rejects an offer.
type rejectBody struct {
	Reason *string `json:"reason"`
}

// inUse is the only reason to reject an offer, or to release an allocation, that has an effect: something else uses the port.
const inUse = "in_use"

// errReason is the error of any other reason.
var errReason = allocator.Invalid(allocator.FieldError{Field: "reason", Detail: `must be "in_use", or absent`})

// reject: POST /services/{service}/offers/{secret}/reject, and DELETE /services/{service}/offers/{secret}
func (s *Server) reject(c *fiber.Ctx) error {
	var body rejectBody
	if err := decodeAny(c, &body); err != nil {
		return err
	}
	if body.Reason != nil && *body.Reason != inUse {
		return errReason
	}
	audit := s.rejecting(c)
	rejected, err := s.allocator.Reject(c.UserContext(), caller(c), pool(c), param(c, "service"), param(c, "secret"), body.Reason != nil)
	if err != nil {
		return err
	}
	audit(rejected)
	if rejected && body.Reason != nil {
		s.metrics.inUse.Inc()
	}
	return c.SendStatus(fiber.StatusNoContent)
}

// statusCreated returns 201 for a new resource, and 200 if the call was repeated.
func statusCreated(created bool) int {
	if created {
		return fiber.StatusCreated
	}
	return fiber.StatusOK
}
