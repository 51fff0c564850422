package handlers

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// definition is the body that defines a service.
type definition struct {
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Start       int               `json:"start"`
	End         int               `json:"end"`
	Ranges      []allocator.Range `json:"ranges"`
	Exclude     []portOrRange     `json:"exclude"`
	Cooldown    duration          `json:"cooldown"`
	Pick        pickField         `json:"pick"`

	DefaultLease *duration `json:"default_lease"`
	MaxLease     *duration `json:"max_lease"`
}

// redefinition is the body that defines a service, or changes one.
type redefinition struct {
	definition
	Drain bool `json:"drain"`
}

func (d definition) definition() allocator.Definition {
	return allocator.Definition{
		Name: d.Name, Description: d.Description, Start: d.Start, End: d.End, Ranges: d.Ranges, Exclude: rangesIn(d.Exclude),
		Cooldown: time.Duration(d.Cooldown), Pick: allocator.Pick(d.Pick),
		DefaultLease: (*time.Duration)(d.DefaultLease), MaxLease: (*time.Duration)(d.MaxLease),
	}
}

// portOrRange is a port, or a range of ports.
type portOrRange allocator.Range

// UnmarshalJSONFrom reads a number or an object.
func (r *portOrRange) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	if from.PeekKind() != '0' {
		return json.UnmarshalDecode(from, (*allocator.Range)(r))
	}
	err := json.UnmarshalDecode(from, &r.Start)
	r.End = r.Start
	return err
}

func rangesIn(list []portOrRange) (ranges []allocator.Range) {
	for _, r := range list {
		ranges = append(ranges, allocator.Range(r))
	}
	return ranges
}

// serviceBody is the body that describes a service.
type serviceBody struct {
	Name        string            `json:"name"`
	Pool        string            `json:"pool"`
	Description string            `json:"description"`
	Start       int               `json:"start"`
	End         int               `json:"end"`
	Ranges      []allocator.Range `json:"ranges,omitempty"` // if there are several
	Cooldown    float64           `json:"cooldown"`         // seconds
	Pick        allocator.Pick    `json:"pick,omitempty"`   // if it is by name
	leaseBounds `json:",inline"`
	Created     string     `json:"created"`
	Ports       portCounts `json:"ports"`
	Waiting     int        `json:"waiting"`
	Warnings    []string   `json:"warnings,omitempty"`
}

// leaseBounds are the leases that a service gives, in seconds: absent if there is none.
type leaseBounds struct {
	Default float64 `json:"default_lease,omitzero"`
	Max     float64 `json:"max_lease,omitzero"`
}

type portCounts struct {
	Total     int `json:"total"`
	Free      int `json:"free"`
	Offered   int `json:"offered"`
	Allocated int `json:"allocated"`
	Cooling   int `json:"cooling"`
	Draining  int `json:"draining,omitzero"`
}

func bodyOfService(pool string, s allocator.Service) serviceBody {
	return serviceBody{
		s.Name, pool, s.Description, s.Start, s.End, s.Ranges, inSeconds(s.Cooldown), s.Pick,
		leaseBounds{inSeconds(s.DefaultLease), inSeconds(s.MaxLease)}, s.Created.Format(timeFormat), portCounts(s.Ports), s.Waiting, s.Warnings,
	}
}

// inSeconds returns a number of seconds. d is a whole number of milliseconds.
func inSeconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// createService: POST /services
func (s *Server) createService(c *fiber.Ctx) error {
	var body definition
	if err := decode(c, &body); err != nil {
		return err
	}
	s.audit.service(c, body.Name)
	if err := mayUse(c, body.Name); err != nil {
		return err
	}
	service, err := s.allocator.Create(c.UserContext(), caller(c), pool(c), body.definition())
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderLocation, base(c)+"/services/"+service.Name)
	return render(c, fiber.StatusCreated, encode(bodyOfService(pool(c), service)))
}

// defineService: PUT /services/{service}
func (s *Server) defineService(c *fiber.Ctx) error {
	name := param(c, "service")
	body := redefinition{definition: definition{Name: name}}
	if err := decode(c, &body); err != nil {
		return err
	}
	if body.Name != name {
		return allocator.Invalid(allocator.FieldError{Field: "name", Detail: "must be the name in the path, or absent"})
	}
	d := body.definition.definition()
	d.Drain = body.Drain
	service, created, err := s.allocator.Define(c.UserContext(), caller(c), pool(c), d)
	if err != nil {
		return err
	}
	if created {
		c.Set(fiber.HeaderLocation, base(c)+"/services/"+service.Name)
	}
	return render(c, statusCreated(created), encode(bodyOfService(pool(c), service)))
}

// changes is the body that changes a part of a definition.
type changes struct {
	Description *string             `json:"description"`
	Start       *int                `json:"start"`
	End         *int                `json:"end"`
	Ranges      []allocator.Range   `json:"ranges"`
	Exclude     []portOrRange       `json:"exclude"`
	Cooldown    *duration           `json:"cooldown"`
	Pick        nullable[pickField] `json:"pick"`
	Drain       bool                `json:"drain"`

	DefaultLease nullable[duration] `json:"default_lease"`
	MaxLease     nullable[duration] `json:"max_lease"`
}

// apply changes a definition. start and end replace ranges, and the other way round. What is excluded leaves the ranges that there are
// then.
func (b changes) apply(d *allocator.Definition) error {
	if b.Ranges != nil {
		d.Start, d.End, d.Ranges = 0, 0, b.Ranges
	}
	if (b.Start == nil) != (b.End == nil) && b.Ranges == nil && d.Ranges != nil {
		field := "start"
		if b.Start != nil {
			field = "end"
		}
		return allocator.Invalid(allocator.FieldError{Field: field, Detail: "is required, or ranges: the service has several"})
	}
	if b.Start != nil && b.End != nil && b.Ranges == nil {
		d.Ranges = nil
	}
	setIfGiven(&d.Start, b.Start)
	setIfGiven(&d.End, b.End)
	setIfGiven(&d.Description, b.Description)
	setIfGiven(&d.Cooldown, (*time.Duration)(b.Cooldown))
	b.Pick.set((*pickField)(&d.Pick))
	if b.DefaultLease.given {
		d.DefaultLease = (*time.Duration)(b.DefaultLease.value)
	}
	if b.MaxLease.given {
		d.MaxLease = (*time.Duration)(b.MaxLease.value)
	}
	d.Exclude, d.Drain = rangesIn(b.Exclude), b.Drain
	return nil
}

func setIfGiven[T any](to, given *T) {
	if given != nil {
		*to = *given
	}
}

// changeService: PATCH /services/{service}
func (s *Server) changeService(c *fiber.Ctx) error {
	var body changes
	if err := decode(c, &body, "pick", "default_lease", "max_lease"); err != nil {
		return err
	}
	service, err := s.allocator.Change(c.UserContext(), caller(c), pool(c), param(c, "service"), body.apply)
	if err != nil {
		return err
	}
	return render(c, fiber.StatusOK, encode(bodyOfService(pool(c), service)))
}

// readService: GET /services/{service}
func (s *Server) readService(c *fiber.Ctx) error {
	service, err := s.allocator.Service(c.UserContext(), pool(c), param(c, "service"))
	if err != nil {
		return err
	}
	return render(c, fiber.StatusOK, encode(bodyOfService(pool(c), service)))
}

// listServices: GET /services, those that the caller's scope has. A page with others is shorter, and still leads to the next one.
func (s *Server) listServices(c *fiber.Ctx) error {
	cursor, limit := page(c)
	services, next, err := s.allocator.Services(c.UserContext(), pool(c), cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	caller, of := principalOf(c), pool(c)
	list := make([]serviceBody, 0, len(services))
	for _, service := range services {
		if caller.InScope(of, service.Name) {
			list = append(list, bodyOfService(of, service))
		}
	}
	return render(c, fiber.StatusOK, encode(list))
}

// removeService: DELETE /services/{service}
func (s *Server) removeService(c *fiber.Ctx) error {
	if err := s.allocator.Remove(c.UserContext(), caller(c), pool(c), param(c, "service")); err != nil {
		return err
	}
	return c.SendStatus(fiber.StatusNoContent)
}

// poolBody is the body that describes a pool.
type poolBody struct {
	Name     string `json:"name"`
	Services *int   `json:"services,omitempty"` // absent if unknown
}

// listPools: GET /v1/pools, those in which the caller's scope has a service.
func (s *Server) listPools(c *fiber.Ctx) error {
	cursor, limit := page(c)
	pools, next, err := s.allocator.Pools(c.UserContext(), principalOf(c).ReachesPool, cursor, limit)
	if err != nil {
		return err
	}
	linkNext(c, next, limit)
	list := make([]poolBody, len(pools))
	for i, pool := range pools {
		if list[i].Name = pool.Name; pool.Services >= 0 {
			list[i].Services = &pool.Services
		}
	}
	return render(c, fiber.StatusOK, encode(list))
}
