package handlers

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// baselineRoute is a route of a pool like those in routes.go, and mounted only where it was asked for.
var baselineRoute = route{"POST", "/services/:service/baseline", "baseline", ofRequests, (*Server).baseline}

// baseline: POST /services/{service}/baseline, which decodes and encodes what an offer does and asks nobody. It is there to
// be compared with.
func (s *Server) baseline(c *fiber.Ctx) error {
	a, err := s.readAcquisition(c)
	if err != nil {
		return err
	}
	defer a.stop()
	return render(c, fiber.StatusCreated, appendOffer(nil, allocator.Offer{
		Service: param(c, "service"),
		Name:    a.requests[0].Name,
		Port:    5000,
		Secret:  "6f8ffc86-d98a-49ba-848a-a7cbaaea9360",
		Created: time.UnixMilli(1763800000000).UTC(),
		Expires: time.UnixMilli(1763801800000).UTC(),
	}))
}
