package client

import (
	"context"
	"net/http"
	"strconv"
	"strings"
)

// holder is how a path names an allocation: in it, a name of digits only would be a port.
func (a Allocation) holder() string {
	if a.Name != "" && !isNumber(a.Name) {
		return a.Name
	}
	return strconv.Itoa(a.Port)
}

func isNumber(text string) bool { return strings.Trim(text, "0123456789") == "" }

// located returns an allocation with its port, if its name does not do and it lacks one. With neither a secret nor a fence it then has the
// fence as well, so that what is released is what was found.
func (c *Client) located(ctx context.Context, a Allocation) (Allocation, error) {
	if a.Name == "" || !isNumber(a.Name) || a.Port != 0 {
		return a, nil
	}
	found, err := c.AllocationByName(ctx, a.Service, a.Name)
	if a.Port = found.Port; a.Secret == "" && a.Fence == 0 {
		a.Fence = found.Fence
	}
	return a, err
}

// AllocationByName reads an allocation by its instance name, which may be digits only. It returns ErrInvalid, ErrServiceNotFound or
// ErrPortNotFound.
func (c *Client) AllocationByName(ctx context.Context, service, name string) (Allocation, error) {
	if name == "" || !isNumber(name) {
		return c.Allocation(ctx, service, name)
	}
	for a, err := range c.AllocationsOf(ctx, service, Filter{Name: name}) {
		return a, err
	}
	return Allocation{}, &Error{Code: ErrPortNotFound.Code, Status: http.StatusNotFound, Detail: name + " is not allocated in " + service}
}
