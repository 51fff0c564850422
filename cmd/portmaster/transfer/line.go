// Package transfer takes services and allocations out of one server, and into another: as lines of JSON, or from the address of a
// running django-portmaster, whose routes and fields are the same.
package transfer

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"portmaster/client"
)

// Line is one line of an export: a service, or an allocation, and its pool.
type Line struct {
	Pool       string             `json:"pool"`
	Service    *Service           `json:"service,omitempty"`
	Allocation *client.Allocation `json:"allocation,omitempty"`

	number int // in the file; 0 if there is none
}

// Service is what defines a service.
type Service struct {
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Start       int     `json:"start"`
	End         int     `json:"end"`
	Cooldown    float64 `json:"cooldown"` // seconds

	DefaultLease float64 `json:"default_lease,omitempty"` // seconds, as is MaxLease; 0: none
	MaxLease     float64 `json:"max_lease,omitempty"`

	Ranges []client.Range `json:"ranges,omitempty"` // if there are several: then Start and End are the first and the last port of all
	Pick   string         `json:"pick,omitempty"`   // "name", or absent

	Draining bool `json:"draining,omitempty"` // allocations may be outside of the ranges: they drain
}

// ranges returns the ranges of the service, also if there is one.
func (s Service) ranges() []client.Range {
	if len(s.Ranges) > 0 {
		return s.Ranges
	}
	return []client.Range{{Start: s.Start, End: s.End}}
}

// has reports whether one of the ranges has all ports of an allocation.
func (s Service) has(a client.Allocation) bool {
	return slices.ContainsFunc(s.ranges(), func(r client.Range) bool { return a.Port >= r.Start && a.Port+a.Count-1 <= r.End })
}

// overlap returns a range of each of two services that have ports in common.
func (s Service) overlap(other Service) (mine, others client.Range, found bool) {
	for _, mine = range s.ranges() {
		for _, others = range other.ranges() {
			if mine.Start <= others.End && others.Start <= mine.End {
				return mine, others, true
			}
		}
	}
	return mine, others, false
}

// String says which ports the service has.
func (s Service) String() string {
	parts := make([]string, len(s.ranges()))
	for i, r := range s.ranges() {
		parts[i] = fmt.Sprintf("%d-%d", r.Start, r.End)
	}
	return strings.Join(parts, ",")
}

// Export writes the services of a pool, each followed by its allocations, as lines of JSON. Each page of 1,000 is as the server had
// it at one moment. What is on offer is not written, and no secrets are.
func Export(ctx context.Context, c *client.Client, pool string, out io.Writer) error {
	to := json.NewEncoder(out)
	for line, err := range Read(ctx, c.Pool(pool), pool) {
		if err != nil {
			return err
		}
		if err := to.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// Read lists what Export writes.
func Read(ctx context.Context, c *client.Client, pool string) func(yield func(Line, error) bool) {
	return func(yield func(Line, error) bool) {
		for s, err := range c.Services(ctx) {
			if err != nil {
				yield(Line{}, err)
				return
			}
			of := &Service{
				Name: s.Name, Description: s.Description, Start: s.Start, End: s.End, Cooldown: s.Cooldown.Seconds(),
				DefaultLease: s.DefaultLease.Seconds(), MaxLease: s.MaxLease.Seconds(), Ranges: s.Ranges, Pick: s.Pick,
				Draining: s.Ports.Draining > 0,
			}
			if !yield(Line{Pool: pool, Service: of}, nil) {
				return
			}
			for a, err := range c.Allocations(ctx, s.Name) {
				if err != nil {
					yield(Line{}, fmt.Errorf("service %s: %w", s.Name, err))
					return
				}
				a.Pool = "" // the line says it
				if !yield(Line{Pool: pool, Allocation: &a}, nil) {
					return
				}
			}
		}
	}
}

// maxLine bounds a line of a file, in bytes: far more than any that Export writes.
const maxLine = 64 << 10

// Parse reads the lines of an export. A line that is none is an error that gives its number.
func Parse(in io.Reader) (lines []Line, err error) {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, maxLine)
	for n := 1; scanner.Scan(); n++ {
		if len(scanner.Bytes()) == 0 {
			continue
		}
		line := Line{Pool: "default", number: n}
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if (line.Service == nil) == (line.Allocation == nil) {
			return nil, fmt.Errorf("line %d: must have a service or an allocation", n)
		}
		lines = append(lines, line)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("line %d or later: %w", len(lines)+1, err)
	}
	return lines, nil
}
