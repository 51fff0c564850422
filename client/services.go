package client

import (
	"context"
	"errors"
	"iter"
	"net/url"
	"strconv"
	"strings"
)

// Define defines a service, or changes its ranges, description and cooldown if there is one of that name. It returns ErrInvalid,
// ErrRangeOverlap, ErrRangeInUse or ErrLimitReached.
func (c *Client) Define(ctx context.Context, d Definition) (s Service, err error) {
	path, err := c.path("services", d.Name)
	if err == nil {
		_, err = c.do(ctx, call{method: "PUT", path: path, body: d, answer: &s})
	}
	return s, err
}

// Change changes a part of the definition of a service. It returns ErrServiceNotFound, and what Define returns.
func (c *Client) Change(ctx context.Context, name string, change Change) (s Service, err error) {
	path, err := c.path("services", name)
	if err == nil {
		_, err = c.do(ctx, call{method: "PATCH", path: path, body: change, answer: &s})
	}
	return s, err
}

// Service reads a service and counts its ports. It returns ErrServiceNotFound if the pool has none of that name.
func (c *Client) Service(ctx context.Context, name string) (s Service, err error) {
	path, err := c.path("services", name)
	if err == nil {
		_, err = c.do(ctx, call{method: "GET", path: path, answer: &s})
	}
	return s, err
}

// Services lists the services of the pool, by range. An error is the last item.
func (c *Client) Services(ctx context.Context) iter.Seq2[Service, error] {
	path, err := c.path("services")
	return list[Service](ctx, c, path, nil, err)
}

// FreePorts lists the ports of a service that go out next, in their order: the first limit of them, 1 to 1000; 0 is 1000. It reserves
// none. It returns ErrServiceNotFound.
func (c *Client) FreePorts(ctx context.Context, service string, limit int) (ports []int, err error) {
	path, err := c.path("services", service, "free")
	if err != nil {
		return nil, err
	}
	if limit != 0 {
		path += "?limit=" + strconv.Itoa(limit)
	}
	var answer struct{ Ports []int }
	_, err = c.do(ctx, call{method: "GET", path: path, answer: &answer})
	return answer.Ports, err
}

// Waiting lists the calls that wait for a port of a service, in the order in which they are served. An error is the last item.
func (c *Client) Waiting(ctx context.Context, service string) iter.Seq2[WaitingCall, error] {
	path, err := c.path("services", service, "waiting")
	return list[WaitingCall](ctx, c, path, nil, err)
}

// Remove removes a service. It returns ErrServiceNotFound, or ErrServiceInUse if a port of the service is allocated or on offer.
func (c *Client) Remove(ctx context.Context, service string) error {
	path, err := c.path("services", service)
	if err != nil {
		return err
	}
	r, err := c.do(ctx, call{method: "DELETE", path: path})
	if r.doubt && errors.Is(err, ErrServiceNotFound) {
		return nil
	}
	return err
}

// Pools lists the pools of the server that have a service, by name. An error is the last item.
func (c *Client) Pools(ctx context.Context) iter.Seq2[Pool, error] {
	return list[Pool](ctx, c, "/v1/pools", nil, nil)
}

// list reads one page after the other, as the items are asked for. query says which items these are; nil: all.
func list[T any](ctx context.Context, c *Client, path string, query url.Values, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		page := path
		if len(query) > 0 {
			page += "?" + query.Encode()
		}
		for {
			var items []T
			var r reply
			if err == nil {
				r, err = c.do(ctx, call{method: "GET", path: page, answer: &items})
			}
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			next := nextPage(r.link)
			if next == "" {
				return
			}
			page = path + "?" + next
		}
	}
}

// nextPage returns the query of the next page. What is in front of it may be another path than the one by which the client reaches
// the server.
func nextPage(link string) (query string) {
	address, rel, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	u, err := url.Parse(address)
	if !ok || err != nil || !strings.Contains(rel, `rel="next"`) {
		return ""
	}
	return u.RawQuery
}
