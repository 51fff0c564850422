package handlers

import (
	"strconv"

	"github.com/gofiber/fiber/v2"
)

// offerBody is the body that asks for an offer.
type offerBody struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// offer: POST /services/{service}/offers
func (s *Server) offer(c *fiber.Ctx) error {
	var body offerBody
	if err := decode(c, &body); err != nil {
		return err
	}
	offer, created, err := s.allocator.Offer(c.UserContext(), pool(c), param(c, "service"), body.Name, body.Secret)
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderLocation, base(c)+"/services/"+offer.Service+"/offers/"+offer.Secret)
	return render(c, statusCreated(created), appendOffer(nil, offer))
}

// listOffers: GET /services/{service}/offers
func (s *Server) listOffers(c *fiber.Ctx) error {
	cursor, limit := page(c)
	offers, next, err := s.allocator.Offers(c.UserContext(), pool(c), param(c, "service"), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	return render(c, fiber.StatusOK, appendList(nil, offers, appendOffer))
}

// readOffer: GET /services/{service}/offers/{secret}
func (s *Server) readOffer(c *fiber.Ctx) error {
	offer, err := s.allocator.OpenOffer(c.UserContext(), pool(c), param(c, "service"), param(c, "secret"))
	if err != nil {
		return err
	}
	return render(c, fiber.StatusOK, appendOffer(nil, offer))
}

// accept: POST /services/{service}/offers/{secret}/accept, and PUT /services/{service}/offers/{secret}
func (s *Server) accept(c *fiber.Ctx) error {
	if err := decodeNothing(c); err != nil {
		return err
	}
	allocation, created, err := s.allocator.Accept(c.UserContext(), pool(c), param(c, "service"), param(c, "secret"))
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderLocation, base(c)+"/services/"+allocation.Service+"/ports/"+strconv.Itoa(allocation.Port))
	return render(c, statusCreated(created), appendAllocation(nil, allocation))
}

// reject: POST /services/{service}/offers/{secret}/reject, and DELETE /services/{service}/offers/{secret}
func (s *Server) reject(c *fiber.Ctx) error {
	if err := decodeNothing(c); err != nil {
		return err
	}
	if err := s.allocator.Reject(c.UserContext(), pool(c), param(c, "service"), param(c, "secret")); err != nil {
		return err
	}
	return c.SendStatus(fiber.StatusNoContent)
}

// statusCreated tells what is new from what was there when the call was repeated.
func statusCreated(created bool) int {
	if created {
		return fiber.StatusCreated
	}
	return fiber.StatusOK
}
