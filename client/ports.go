package client

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"time"
)

// Offer asks for a port. It returns ErrInvalid, ErrServiceNotFound, ErrNameTaken, ErrExhausted, ErrPortTaken or ErrTooManyWaiting, and
// for a Secret of the request ErrOfferAccepted or ErrOfferRejected.
//
// If the context ends while it is unknown whether the call got a port, the client tries to give it back, which takes up to 3 s. If
// the request has a Secret, it leaves that to the caller, who may come back for the port.
func (c *Client) Offer(ctx context.Context, service string, r Request, w Wait) (Offer, error) {
	return first(c.OfferAll(ctx, service, []Request{r}, w))
}

// OfferAll asks for several ports at once, and returns offers for all of the 1 to 100 requests, in their order, or for none. See
// Offer; the Fields of an error name the requests that are at fault.
func (c *Client) OfferAll(ctx context.Context, service string, requests []Request, w Wait) ([]Offer, error) {
	offers, _, err := acquire(ctx, c, service, "offers", requests, w, func(o *Offer) (string, int) { return o.Name, o.Port })
	return offers, err
}

// Claim asks for a port as Offer does, and accepts it at once. The allocation has the secret of the request, unless it Existed.
func (c *Client) Claim(ctx context.Context, service string, r Request, w Wait) (Allocation, error) {
	return first(c.ClaimAll(ctx, service, []Request{r}, w))
}

// ClaimAll claims several ports at once. See OfferAll.
func (c *Client) ClaimAll(ctx context.Context, service string, requests []Request, w Wait) ([]Allocation, error) {
	all, sent, err := acquire(ctx, c, service, "ports", requests, w, func(a *Allocation) (string, int) { return a.Name, a.Port })
	for i := range all {
		if all[i].Existed = requests[i].Existing && all[i].Secret == ""; all[i].Existed {
			continue
		}
		all[i].Lease, all[i].sent = requests[i].Lease, sent
		if all[i].Expires.IsZero() { // it accepted an offer that has none
			all[i].Lease = 0
		} else if all[i].Lease == 0 {
			all[i].Lease = all[i].Expires.Sub(all[i].Created)
		}
	}
	return all, err
}

func first[T any](all []T, err error) (one T, _ error) {
	if err != nil {
		return one, err
	}
	return all[0], nil
}

// acquire asks for what requests are for, with secrets that make the call safe to repeat.
func acquire[T any](
	ctx context.Context, c *Client, service, route string, requests []Request, w Wait, of func(*T) (name string, port int),
) (got []T, sent time.Time, err error) {
	path, err := c.path("services", service, route)
	if err != nil {
		return nil, sent, err
	}
	own := make([]Request, len(requests))
	var generated []Request
	for i, r := range requests {
		if own[i] = r; r.Secret == "" {
			own[i].Secret = NewSecret()
			generated = append(generated, own[i])
		}
	}
	call := call{method: "POST", path: path, body: own, answer: &got, wait: newWaiting(w)}
	var alone T
	if len(own) == 1 { // the errors of a list name the request
		call.body, call.answer = own[0], &alone
	}
	stop := c.report(ctx, service, w)
	r, err := c.do(ctx, call)
	stop()
	if len(own) == 1 && err == nil {
		got = []T{alone}
	}
	if err == nil && len(got) != len(own) {
		err = &Error{Status: 200, Detail: "the answer is not Portmaster's"}
	}
	for i := 0; i < len(own) && err == nil; i++ {
		if name, port := of(&got[i]); name != own[i].Name || port < 1 {
			err = &Error{Status: 200, Detail: "the answer is not Portmaster's"}
		}
	}
	if err != nil {
		if _, doubt := lastOf(err).repeatable(); r.doubt && (doubt || ctx.Err() != nil) {
			c.giveBack(ctx, service, route, generated)
		}
		return nil, sent, err
	}
	return got, r.began(), nil
}

// giveBack gives back what a call may have got with secrets that nobody else knows. The server notices within a second that the client
// of a call is gone: until then the call may still get its port.
func (c *Client) giveBack(ctx context.Context, service, route string, requests []Request) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer stop()
	once := *c
	once.options.OnRetry = nil
	for try := 0; try < 2 && len(requests) > 0 && (try == 0 || sleep(ctx, 1200*time.Millisecond)); try++ {
		for i, r := range requests {
			var err error
			if route == "offers" {
				err = once.Reject(ctx, service, r.Secret, false)
			} else {
				err = once.Release(ctx, Allocation{Service: service, Name: r.Name, Secret: r.Secret})
			}
			if i == len(requests)-1 && err == nil {
				return // the call had all or nothing
			}
		}
	}
}

// OpenOffer reads the open offer that has a secret. It returns ErrOfferNotFound, or for a short while ErrOfferAccepted or
// ErrOfferRejected.
func (c *Client) OpenOffer(ctx context.Context, service, secret string) (o Offer, err error) {
	path, err := c.path("services", service, "offers", secret)
	if err == nil {
		_, err = c.do(ctx, call{method: "GET", path: path, answer: &o})
	}
	return o, err
}

// Offers lists the open offers of a service by port, without their secrets. An error is the last item.
func (c *Client) Offers(ctx context.Context, service string) iter.Seq2[Offer, error] {
	return c.OffersOf(ctx, service, Filter{})
}

// Accept accepts an offer: for a lease of 1 s to 30 days, or, if lease is 0, for the one that the offer has. It returns ErrInvalid,
// ErrServiceNotFound, ErrOfferNotFound or ErrOfferRejected. The allocation has the secret of the offer.
func (c *Client) Accept(ctx context.Context, service, secret string, lease time.Duration) (a Allocation, err error) {
	path, err := c.path("services", service, "offers", secret, "accept")
	if err != nil {
		return a, err
	}
	call := call{method: "POST", path: path, answer: &a}
	if lease != 0 {
		call.body = map[string]seconds{"lease": seconds(lease)}
	}
	r, err := c.do(ctx, call)
	if err != nil {
		return Allocation{}, err
	}
	if a.Secret, a.sent = secret, r.began(); !a.Expires.IsZero() {
		a.Lease = a.Expires.Sub(a.Created)
	}
	return a, nil
}

// Reject rejects an offer, which makes its port and its name free again. If inUse, the port was found in use by something that does
// not ask Portmaster, and is quarantined. It returns ErrServiceNotFound, ErrOfferNotFound or ErrOfferAccepted.
func (c *Client) Reject(ctx context.Context, service, secret string, inUse bool) error {
	path, err := c.path("services", service, "offers", secret, "reject")
	if err != nil {
		return err
	}
	call := call{method: "POST", path: path}
	if inUse {
		call.body = map[string]string{"reason": "in_use"}
	}
	_, err = c.do(ctx, call)
	return err
}

// Renew starts the lease of an allocation again, which is found by its service, name (or port) and secret: for a lease of 1 s to 30
// days, or, if lease is 0, for as long as before, but not longer than the service allows by now. It returns ErrInvalid,
// ErrServiceNotFound, ErrPortNotFound or ErrSecretMismatch.
func (c *Client) Renew(ctx context.Context, a Allocation, lease time.Duration) (Allocation, error) {
	return c.renew(ctx, a, lease, 0)
}

func (c *Client) renew(ctx context.Context, a Allocation, lease, timeout time.Duration) (renewed Allocation, err error) {
	if a, err = c.located(ctx, a); err != nil {
		return Allocation{}, err
	}
	path, err := c.path("services", a.Service, "ports", a.holder(), "renew")
	if err != nil {
		return Allocation{}, err
	}
	body := struct {
		Secret string  `json:"secret"`
		Lease  seconds `json:"lease,omitzero"`
	}{a.Secret, seconds(lease)}
	r, err := c.do(ctx, call{method: "POST", path: path, body: body, answer: &renewed, timeout: timeout})
	if err != nil {
		return Allocation{}, err
	}
	renewed.Secret, renewed.Lease, renewed.sent = a.Secret, lease, r.sent
	if lease == 0 { // it may be shorter than it was, so that Keep renews at once
		renewed.Lease, renewed.sent = a.Lease, time.Time{}
	}
	return renewed, nil
}

// ChangeLabels sets labels of an allocation, which is found as by Renew, and removes those that are nil; others stay. It returns
// ErrInvalid, ErrServiceNotFound, ErrPortNotFound or ErrSecretMismatch. What is returned has the secret, but not the lease.
func (c *Client) ChangeLabels(ctx context.Context, a Allocation, labels map[string]*string) (changed Allocation, err error) {
	if a, err = c.located(ctx, a); err != nil {
		return Allocation{}, err
	}
	path, err := c.path("services", a.Service, "ports", a.holder())
	if err != nil {
		return Allocation{}, err
	}
	body := struct {
		Secret string             `json:"secret"`
		Labels map[string]*string `json:"labels"`
	}{a.Secret, labels}
	if _, err = c.do(ctx, call{method: "PATCH", path: path, body: body, answer: &changed}); err != nil {
		return Allocation{}, err
	}
	changed.Secret = a.Secret
	return changed, nil
}

// Release releases an allocation, which is found by its service and name (or port). It returns ErrServiceNotFound or ErrPortNotFound.
//
// Give the secret or the fence, if you know them: then this allocation is released and no other, and Release returns
// ErrSecretMismatch or ErrPreconditionFailed if somebody else has the port by now. With neither, whoever has it loses it, the server
// may refuse with ErrPreconditionRequired, and the call is not repeated if its outcome is unknown.
func (c *Client) Release(ctx context.Context, a Allocation) error {
	return c.release(ctx, a, "")
}

// ReleaseInUse releases an allocation as Release does, and says that something still uses its port, such as what a command left
// behind: the port is quarantined.
func (c *Client) ReleaseInUse(ctx context.Context, a Allocation) error {
	return c.release(ctx, a, "?reason=in_use")
}

func (c *Client) release(ctx context.Context, a Allocation, query string) error {
	a, err := c.located(ctx, a)
	if err != nil {
		return err
	}
	path, err := c.path("services", a.Service, "ports", a.holder())
	if err != nil {
		return err
	}
	call := call{method: "DELETE", path: path + query}
	switch {
	case a.Secret != "" && !ValidName(a.Secret):
		return invalid("offers", a.Secret)
	case a.Secret != "":
		call.header = [2]string{"Portmaster-Secret", a.Secret}
	case a.Fence != 0:
		call.header = [2]string{"If-Match", `"` + strconv.FormatInt(a.Fence, 10) + `"`}
	default:
		call.once = true
	}
	r, err := c.do(ctx, call)
	if r.doubt && a.Secret == "" && (errors.Is(err, ErrPortNotFound) || errors.Is(err, ErrPreconditionFailed)) {
		return nil // an earlier attempt did it
	}
	return err
}

// Allocation reads an allocation by its port, any of a block, or by its instance name; digits only are a port. It returns
// ErrServiceNotFound or ErrPortNotFound.
func (c *Client) Allocation(ctx context.Context, service, portOrName string) (a Allocation, err error) {
	path, err := c.path("services", service, "ports", portOrName)
	if err == nil {
		_, err = c.do(ctx, call{method: "GET", path: path, answer: &a})
	}
	return a, err
}

// Allocations lists the allocations of a service by port, without their secrets. An error is the last item.
func (c *Client) Allocations(ctx context.Context, service string) iter.Seq2[Allocation, error] {
	return c.AllocationsOf(ctx, service, Filter{})
}
