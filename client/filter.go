package client

import (
	"context"
	"iter"
	"net/url"
)

// Filter says which offers or allocations of a service are meant: those for which all fields hold that are not "".
type Filter struct {
	Owner      string // who called for them, as the server knows it by a token
	Name       string // the instance name
	NamePrefix string // what the instance name begins with
	Label      string // a label that they have: KEY=VALUE
}

func (f Filter) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"owner": f.Owner, "name": f.Name, "name_prefix": f.NamePrefix, "label": f.Label} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// OffersOf is Offers of those that are meant.
func (c *Client) OffersOf(ctx context.Context, service string, of Filter) iter.Seq2[Offer, error] {
	path, err := c.path("services", service, "offers")
	return list[Offer](ctx, c, path, of.query(), err)
}

// AllocationsOf is Allocations of those that are meant.
func (c *Client) AllocationsOf(ctx context.Context, service string, of Filter) iter.Seq2[Allocation, error] {
	path, err := c.path("services", service, "ports")
	return list[Allocation](ctx, c, path, of.query(), err)
}

// ReleaseAll releases all allocations of a service that are meant, and returns how many. The filter must not be empty. Operators release
// what anybody has, others what they have themselves, and get ErrNotOwner if the filter names another owner. It may be repeated: the
// call that succeeds tells only how many were left.
func (c *Client) ReleaseAll(ctx context.Context, service string, of Filter) (released int, err error) {
	if of == (Filter{}) {
		return 0, &Error{Code: ErrInvalid.Code, Detail: "the request was not sent", Fields: []FieldError{{"filter", "is required"}}}
	}
	path, err := c.path("services", service, "ports")
	var answer struct{ Released int }
	if err == nil {
		_, err = c.do(ctx, call{method: "DELETE", path: path + "?" + of.query().Encode(), answer: &answer})
	}
	return answer.Released, err
}
