package exec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"portmaster/client"
)

const (
	// maxOccupied is how many times exec takes other ports. On a machine where every check fails it would otherwise put the whole
	// service into quarantine.
	maxOccupied = 100
	// answerTime is for the last answer, when the time to wait is over.
	answerTime = 2 * time.Second
)

// acquire acquires all ports: the services in the order of their names, so that no two execs wait for each other, and all
// ports of one service at once. If it fails, some may be held.
func (h *holder) acquire(ctx context.Context) error {
	h.waiting.Store(true)
	defer h.waiting.Store(false)
	until := time.Now().Add(h.wait)
	if h.wait > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, until.Add(answerTime), fmt.Errorf("nothing within %s", h.wait))
		defer stop()
	}
	byService := map[string][]*port{}
	for i := range h.ports {
		p := &h.ports[i]
		byService[p.service] = append(byService[p.service], p)
	}
	for _, service := range slices.Sorted(maps.Keys(byService)) {
		if err := h.acquireOf(ctx, service, byService[service], until); err != nil {
			return fmt.Errorf("no port of %s: %w", service, err)
		}
	}
	return nil
}

// acquireOf acquires ports of one service that nothing on this machine uses.
func (h *holder) acquireOf(ctx context.Context, service string, ports []*port, until time.Time) error {
	requests, err := h.requests(ctx, service, ports)
	if err != nil {
		return err
	}
	defer h.say.waiting.Done()
	for range maxOccupied {
		wait := h.say.wait(service, time.Until(until))
		offers, err := h.client.OfferAll(ctx, service, requests, wait)
		if errors.Is(err, client.ErrNameTaken) && h.name == "" {
			for i := range requests { // a container with the same host name has the same process ids, or had them a moment ago
				requests[i].Name += randomSuffix()
			}
			offers, err = h.client.OfferAll(ctx, service, requests, wait)
		}
		if err != nil {
			return err
		}
		if free, err := h.check(ctx, offers); err != nil {
			return err
		} else if free {
			return h.accept(ctx, ports, offers)
		}
	}
	return fmt.Errorf("of %d offers each had a port that is in use on this machine", maxOccupied)
}

// requests returns the requests for ports of one service. The name of the second, and of more, has the alias, too.
func (h *holder) requests(ctx context.Context, service string, ports []*port) (requests []client.Request, err error) {
	var s client.Service
	if h.auto {
		if s, err = h.client.Service(ctx, service); err != nil {
			return nil, err
		}
	}
	id := ownIdentity()
	for i, p := range ports {
		suffix := ""
		if i > 0 {
			suffix = "." + p.alias
		}
		r := client.Request{Name: h.name + suffix, Prefer: h.prefer, Count: h.count, Align: h.align, Labels: h.labels}
		if h.name == "" {
			r.Name = id.name(os.Getpid(), maxName-len(suffix)-len(randomSuffix())) + suffix
		}
		if h.auto {
			r.Prefer = preferred(s, h.name, id, p.alias)
			if h.align > 1 {
				r.Prefer -= r.Prefer % h.align
			}
			if !s.Has(r.Prefer) {
				r.Prefer = 0
			}
		}
		requests = append(requests, r)
	}
	return requests, nil
}

// check reports whether nothing on this machine uses the ports on offer. Otherwise it rejects the offers, those of ports in use as
// such.
func (h *holder) check(ctx context.Context, offers []client.Offer) (free bool, err error) {
	inUse := make([]bool, len(offers))
	for i, o := range offers {
		occupied, failed := h.checks.occupied(o.Port, o.Count)
		if inUse[i] = occupied != ""; inUse[i] {
			h.say.line("%s of %s is in use on this machine by a program that does not ask Portmaster", occupied, o.Service)
		}
		err = errors.Join(err, failed)
	}
	if err == nil && !slices.Contains(inUse, true) {
		return true, nil
	}
	for i, o := range offers {
		err = errors.Join(err, h.reject(ctx, o, inUse[i]))
	}
	return false, err
}

// reject rejects an offer, or releases what it has become.
func (h *holder) reject(ctx context.Context, o client.Offer, inUse bool) error {
	err := h.client.Reject(ctx, o.Service, o.Secret, inUse)
	if ctx.Err() != nil { // a signal came, or the time is over, and the port is still to be given back
		again, stop := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
		defer stop()
		if err = h.client.Reject(again, o.Service, o.Secret, inUse); errors.Is(err, client.ErrOfferAccepted) {
			err = h.client.Release(again, client.Allocation{Service: o.Service, Name: o.Name, Port: o.Port, Secret: o.Secret})
		}
	}
	if errors.Is(err, client.ErrOfferNotFound) {
		return nil
	}
	return err
}

// accept accepts offers, and keeps what they become. Those that it cannot accept it rejects. A lease that nobody asked for yields to a
// shorter one of the service.
func (h *holder) accept(ctx context.Context, ports []*port, offers []client.Offer) error {
	for i, o := range offers {
		lease := h.lease
		if h.yields && o.Lease > 0 {
			lease = min(lease, o.Lease)
		}
		a, err := h.client.Accept(ctx, o.Service, o.Secret, lease)
		if err != nil {
			for _, o := range offers[i:] {
				err = errors.Join(err, h.reject(ctx, o, false))
			}
			return err
		}
		ports[i].allocation = a
		h.keep(*ports[i])
	}
	return nil
}
