// Package transfer takes services and allocations out of one server, and into another: as lines of JSON, or from the address of a
// running django-portmaster, whose routes and fields are the same.
package transfer

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

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
			of := &Service{s.Name, s.Description, s.Start, s.End, float64(s.Cooldown) / 1e9}
			if !yield(Line{Pool: pool, Service: of}, nil) {
				return
			}
			for a, err := range c.Allocations(ctx, s.Name) {
				if err != nil {
					yield(Line{}, fmt.Errorf("service %s: %w", s.Name, err))
					return
				}
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
