package client

import (
	"encoding/json"
	"slices"
	"time"
)

// Durations are numbers of seconds in JSON. Each type with one is encoded as an outer struct whose fields hide those of the same
// name inside.

// seconds is a duration in JSON.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) { return json.Marshal(inSeconds(time.Duration(s))) }

// inSeconds returns the number nearest to d, so that 1.158 s is written as that; d.Seconds adds two numbers, and may give
// 1.1580000000000001, which the server refuses.
func inSeconds(d time.Duration) float64 { return float64(d) / float64(time.Second) }

func (s *seconds) UnmarshalJSON(text []byte) error {
	var number float64
	err := json.Unmarshal(text, &number)
	*s = seconds(time.Duration(number*1000+0.5) * time.Millisecond)
	return err
}

// Definition is what a service is defined by.
type Definition struct {
	Name        string        `json:"name"`
	Description string        `json:"description"`       // at most 256 bytes
	Start       int           `json:"start,omitempty"`   // first port
	End         int           `json:"end,omitempty"`     // last port
	Ranges      []Range       `json:"ranges,omitempty"`  // in place of Start and End: up to 32, none of which overlaps another
	Exclude     []Range       `json:"exclude,omitempty"` // ports of these that the service does not have
	Cooldown    time.Duration `json:"-"`                 // for which a port rests after it was given back: 0 to 30 days, whole milliseconds
	Pick        string        `json:"pick,omitempty"`    // "name": by a hash of the name of the request; "" is "rested": the port free the longest
	Drain       bool          `json:"drain,omitempty"`   // ports that leave the ranges while they are held stay until they are given back

	// DefaultLease is the lease of a request that has none, and MaxLease the longest: 1 s to 30 days, whole milliseconds. 0: none;
	// without a DefaultLease, a request that has none gets MaxLease, if there is one.
	DefaultLease time.Duration `json:"-"`
	MaxLease     time.Duration `json:"-"`
}

// MarshalJSON returns the body that defines the service.
func (d Definition) MarshalJSON() ([]byte, error) {
	type plain Definition
	return json.Marshal(struct {
		plain
		Cooldown seconds `json:"cooldown"`
		leaseBounds
	}{plain(d), seconds(d.Cooldown), leaseBounds{seconds(d.DefaultLease), seconds(d.MaxLease)}})
}

// leaseBounds are the leases that a service gives.
type leaseBounds struct {
	DefaultLease seconds `json:"default_lease,omitzero"`
	MaxLease     seconds `json:"max_lease,omitzero"`
}

// Range is a range of ports, both ends included.
type Range struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

// Change is a change of a part of a definition. What is nil stays.
type Change struct {
	Description *string        `json:"description,omitempty"`
	Start       *int           `json:"start,omitempty"` // with End in place of all ranges, or alone if there is one
	End         *int           `json:"end,omitempty"`
	Ranges      []Range        `json:"ranges,omitempty"`
	Exclude     []Range        `json:"exclude,omitempty"` // leaves the ranges that the service has then
	Drain       bool           `json:"drain,omitempty"`   // as in Definition
	Cooldown    *time.Duration `json:"-"`
	Pick        *string        `json:"pick,omitempty"` // "name" or "rested"

	DefaultLease *time.Duration `json:"-"` // 0 takes it away
	MaxLease     *time.Duration `json:"-"` // 0 takes it away
}

// MarshalJSON returns the body that changes the service.
func (c Change) MarshalJSON() ([]byte, error) {
	type plain Change
	return json.Marshal(struct {
		plain
		Cooldown     *seconds `json:"cooldown,omitempty"`
		DefaultLease any      `json:"default_lease,omitempty"`
		MaxLease     any      `json:"max_lease,omitempty"`
	}{plain(c), (*seconds)(c.Cooldown), secondsOrNull(c.DefaultLease), secondsOrNull(c.MaxLease)})
}

// secondsOrNull returns nil for what stays, and null for 0.
func secondsOrNull(d *time.Duration) any {
	switch {
	case d == nil:
		return nil
	case *d == 0:
		return json.RawMessage("null")
	}
	return seconds(*d)
}

// Service is a name for ports of a pool: of one range, or of several.
type Service struct {
	Name        string        `json:"name"`
	Pool        string        `json:"pool,omitempty"` // "" from a server that does not tell yet
	Description string        `json:"description"`
	Start       int           `json:"start"`            // first port
	End         int           `json:"end"`              // last port
	Ranges      []Range       `json:"ranges,omitempty"` // if there are several
	Cooldown    time.Duration `json:"-"`
	Pick        string        `json:"pick,omitempty"` // "name" if it picks ports by name
	Created     time.Time     `json:"created"`
	Ports       PortCounts    `json:"ports"`
	Waiting     int           `json:"waiting"`            // calls in the waitlist
	Warnings    []string      `json:"warnings,omitempty"` // what an operator should know about the range

	DefaultLease time.Duration `json:"-"` // of a request that has none; 0: MaxLease, if there is one
	MaxLease     time.Duration `json:"-"` // the longest that can be asked for; 0: 30 days
}

// AllRanges returns the ranges of the service, also if there is one.
func (s Service) AllRanges() []Range {
	if len(s.Ranges) > 0 {
		return s.Ranges
	}
	return []Range{{s.Start, s.End}}
}

// Has reports whether the service has a port.
func (s Service) Has(port int) bool {
	return slices.ContainsFunc(s.AllRanges(), func(r Range) bool { return port >= r.Start && port <= r.End })
}

// PortCounts says how many ports of a service are in each state. Total is the sum of those before Draining.
type PortCounts struct {
	Total     int `json:"total"`
	Free      int `json:"free"`
	Offered   int `json:"offered"`
	Allocated int `json:"allocated"`
	Cooling   int `json:"cooling"` // nobody's, and not free yet: they cool down or are quarantined

	// How many of those that are offered or allocated are outside of the ranges: they leave the service when they are given back.
	Draining int `json:"draining,omitempty"`
}

// MarshalJSON returns the service as the API has it.
func (s Service) MarshalJSON() ([]byte, error) {
	type plain Service
	return json.Marshal(struct {
		plain
		Cooldown seconds `json:"cooldown"`
		leaseBounds
	}{plain(s), seconds(s.Cooldown), leaseBounds{seconds(s.DefaultLease), seconds(s.MaxLease)}})
}

// UnmarshalJSON reads a service as the API has it.
func (s *Service) UnmarshalJSON(text []byte) error {
	type plain Service
	outer := struct {
		*plain
		Cooldown seconds `json:"cooldown"`
		leaseBounds
	}{plain: (*plain)(s)}
	err := json.Unmarshal(text, &outer)
	s.Cooldown = time.Duration(outer.Cooldown)
	s.DefaultLease, s.MaxLease = time.Duration(outer.leaseBounds.DefaultLease), time.Duration(outer.leaseBounds.MaxLease)
	return err
}

// Request is what a call asks for: a port, or a block of consecutive ports, for an instance name.
type Request struct {
	Name   string        `json:"name"`             // the holder; see ValidInstanceName
	Secret string        `json:"secret,omitempty"` // a random UUID; "": the client generates one
	Lease  time.Duration `json:"-"`                // 1 s to 30 days, whole milliseconds; 0: until it is released
	Port   int           `json:"port,omitempty"`   // exactly this port, or the first of the block; 0: any
	Prefer int           `json:"prefer,omitempty"` // this port, or any other if it is not free; not with Port or Count; 0: none
	Count  int           `json:"count,omitempty"`  // of consecutive ports, up to 100; 0 is 1
	Align  int           `json:"align,omitempty"`  // the first port is a multiple of it, 2 to 64; 0: any

	// Labels are what others are to know: up to 16 keys of a-z 0-9 _, with values of up to 256 bytes, 2 KiB together.
	Labels map[string]string `json:"labels,omitempty"`

	// Existing, in a claim, takes the allocation that the name has already for the answer, if it has one, whatever else is asked for. An
	// offer with it is ErrInvalid.
	Existing bool `json:"existing,omitempty"`
}

// MarshalJSON returns the request as the API has it.
func (r Request) MarshalJSON() ([]byte, error) {
	type plain Request
	return json.Marshal(struct {
		plain
		Lease seconds `json:"lease,omitzero"`
	}{plain(r), seconds(r.Lease)})
}

// Offer is a port, or a block, that is kept for a name until it is accepted, rejected, or expires.
type Offer struct {
	Pool    string        `json:"pool,omitempty"` // "" from a server that does not tell yet
	Service string        `json:"service"`
	Name    string        `json:"name"`
	Port    int           `json:"port"`             // the first
	Count   int           `json:"count,omitempty"`  // of consecutive ports, 1 or more
	Owner   string        `json:"owner,omitempty"`  // who called for it; "": the server knows no callers
	Secret  string        `json:"secret,omitempty"` // "" in a list
	Created time.Time     `json:"created"`
	Expires time.Time     `json:"expires"`
	Lease   time.Duration `json:"-"` // of the allocation that it would become; 0: none

	Labels map[string]string `json:"labels,omitempty"`
}

// MarshalJSON returns the offer as the API has it.
func (o Offer) MarshalJSON() ([]byte, error) {
	type plain Offer
	o.Count = omitOne(o.Count)
	return json.Marshal(struct {
		plain
		Lease seconds `json:"lease,omitzero"`
	}{plain(o), seconds(o.Lease)})
}

// UnmarshalJSON reads an offer as the API has it.
func (o *Offer) UnmarshalJSON(text []byte) error {
	type plain Offer
	outer := struct {
		*plain
		Lease seconds `json:"lease"`
	}{plain: (*plain)(o)}
	err := json.Unmarshal(text, &outer)
	o.Lease, o.Count = time.Duration(outer.Lease), max(o.Count, 1)
	return err
}

// Allocation is a port, or a block, that its holder has until it is released, or until its lease ends.
type Allocation struct {
	Pool    string    `json:"pool,omitempty"` // "" from a server that does not tell yet
	Service string    `json:"service"`
	Name    string    `json:"name"`
	Port    int       `json:"port"`            // the first
	Count   int       `json:"count,omitempty"` // of consecutive ports, 1 or more
	Owner   string    `json:"owner,omitempty"` // who called for it; "": the server knows no callers
	Created time.Time `json:"created"`
	Fence   int64     `json:"fence"`            // grows with each allocation of the pool
	Expires time.Time `json:"expires,omitzero"` // when its lease ends; zero: it has none
	Secret  string    `json:"secret,omitempty"` // proves who holds it; "" where it was only read

	Labels map[string]string `json:"labels,omitempty"`

	// Existed reports that a Request with Existing found this: another call claimed it, so Secret is "", and Lease is 0.
	Existed bool `json:"-"`

	// Lease is how long the lease lasts from one renewal to the next. The API does not tell: it is known to the client that claimed,
	// accepted or renewed the allocation, and 0 otherwise, or if there is no lease.
	Lease time.Duration `json:"-"`

	sent time.Time // when the request was sent by which its lease began
}

// MarshalJSON returns the allocation as the API has it.
func (a Allocation) MarshalJSON() ([]byte, error) {
	type plain Allocation
	a.Count = omitOne(a.Count)
	return json.Marshal(plain(a))
}

// UnmarshalJSON reads an allocation as the API has it.
func (a *Allocation) UnmarshalJSON(text []byte) error {
	type plain Allocation
	err := json.Unmarshal(text, (*plain)(a))
	a.Count = max(a.Count, 1)
	return err
}

func omitOne(count int) int {
	if count == 1 {
		return 0
	}
	return count
}

// WaitingCall is a call that waits for a port.
type WaitingCall struct {
	Pool     string    `json:"pool,omitempty"` // where the service is
	Service  string    `json:"service"`
	Name     string    `json:"name,omitempty"`     // for whom it asks; of a list of requests, the first; "": it waits on an older server
	Ports    int       `json:"ports"`              // how many it waits for, in all
	Requests int       `json:"requests,omitempty"` // how many it has; 0 is 1
	Since    time.Time `json:"since,omitzero"`     // when it joined the waitlist
}

// Pool is one port space.
type Pool struct {
	Name     string `json:"name"`
	Services *int   `json:"services,omitempty"` // how many it has; nil if its Redis Cluster node did not answer
}
