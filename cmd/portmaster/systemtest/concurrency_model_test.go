//go:build !faults

package systemtest

import (
	"strings"

	"github.com/anishathalye/porcupine"
)

// status is what a history has come to.
type status interface {
	// during is what it may be by the time that a call takes effect, when a lease may have run out.
	during(e event) []status
	// after is what it may be after a call that was answered as it was: none, where the answer is wrong.
	after(e event) []status
}

// modelOf returns the model of a history, which has the kind of it in its name.
func modelOf(of string) porcupine.Model {
	begin := status(holding{})
	if strings.HasPrefix(of, "secret ") {
		begin = life{}
	}
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{begin} },
		Step: func(state, input, _ any) (next []any) {
			e := input.(event)
			for _, before := range state.(status).during(e) {
				for _, after := range before.after(e) {
					next = append(next, after)
				}
			}
			return next
		},
	}).ToModel()
}

// lasting says whether a lease may still run when a call takes effect, and whether it may have run out. Redis tells the
// time in whole milliseconds, and so a lease that ends at one has ended from the first of its nanoseconds on.
func lasting(expires int64, e event) (runs, ranOut bool) {
	if expires == 0 {
		return true, false
	}
	return e.call < expires*1e6, e.ret >= expires*1e6
}

// holding is the status of a port, or of a name: free where the secret is empty, on offer where the fence is 0. A port that was
// released as in use is quarantined from a moment of that call on.
type holding struct {
	secret  string
	fence   int64
	expires int64
	rested  [2]int64 // Unix ms: the first and the last moment at which its quarantine may end
}

func (h holding) during(e event) (all []status) {
	runs, ranOut := lasting(h.expires, e)
	if runs {
		all = append(all, h)
	}
	if ranOut {
		all = append(all, holding{})
	}
	return all
}

func only(right bool, next status) []status {
	if right {
		return []status{next}
	}
	return nil
}

func (h holding) after(e event) []status {
	free, offered, allocated := h.secret == "", h.secret != "" && h.fence == 0, h.fence != 0
	own := h.secret == e.secret
	same := own && h.fence == e.fence && h.expires == e.expires
	switch e.act + " " + e.code {
	case "offer 201":
		return only(free && e.ret/1e6 >= h.rested[0], holding{secret: e.secret})
	case "offer 200":
		return only(offered && own, h)
	case "claim 201": // of an offer, or of nothing
		return only(free && e.ret/1e6 >= h.rested[0] || offered && own, holding{secret: e.secret, fence: e.fence, expires: e.expires})
	case "claim 200", "accept 200":
		return only(allocated && same, h)
	case "accept 201":
		return only(offered && own, holding{secret: e.secret, fence: e.fence, expires: e.expires})
	case "existing 200": // anybody's
		return only(allocated && h.fence == e.fence && h.expires == e.expires, h)
	case "offer NAME_TAKEN", "claim NAME_TAKEN":
		return only(offered || allocated && e.how != "of what exists", h)
	case "offer PORT_TAKEN", "claim PORT_TAKEN": // or it is for those who are in line
		return only(!free || e.inLine || e.call/1e6 <= h.rested[1], h)
	case "offer EXHAUSTED", "claim EXHAUSTED":
		return only(free, h)
	case "offer INVALID", "claim INVALID", "accept INVALID":
		return only(e.impossible, h)
	case "reject OFFER_ACCEPTED":
		return only(allocated && own, h)
	case "offer OFFER_ACCEPTED", "offer OFFER_REJECTED", "claim OFFER_REJECTED", "claim OFFER_ACCEPTED", "accept OFFER_REJECTED":
		return only(!own || e.act == "offer" && allocated, h)
	case "accept OFFER_NOT_FOUND", "reject OFFER_NOT_FOUND":
		return only(!own || e.drawn, h)
	case "reject 204":
		return h.without(offered, own)
	}
	return h.afterGivenBack(e, allocated, own)
}

// without is what is left after something of its own was given back, as it may have been before.
func (h holding) without(there, own bool) []status {
	if own {
		return only(there, holding{})
	}
	return []status{h}
}

func (h holding) afterGivenBack(e event, allocated, own bool) []status {
	released := holding{}
	if e.inUse {
		released.rested = [2]int64{e.call/1e6 + quarantine.Milliseconds(), e.ret/1e6 + quarantine.Milliseconds()}
	}
	switch e.act + " " + e.code {
	case "renew 200":
		return only(allocated && own && h.fence == e.fence, holding{secret: h.secret, fence: h.fence, expires: e.expires})
	case "renew INVALID": // too long, or without a lease, of what has none
		return only(allocated && own && (e.impossible || h.expires == 0 && e.lease == 0), h)
	case "renew SECRET_MISMATCH", "release own SECRET_MISMATCH":
		return only(allocated && !own, h)
	case "renew PORT_NOT_FOUND", "release PORT_NOT_FOUND", "release own PORT_NOT_FOUND":
		return only(!allocated, h)
	case "release own 204":
		return h.without(allocated, own)
	case "release 204":
		return only(allocated && (e.condition == 0 || h.fence == e.condition), released)
	case "release PRECONDITION_FAILED":
		return only(allocated && h.fence != e.condition, h)
	case "maybe released": // it was this allocation that was released, or another
		if h.fence == e.condition {
			return []status{released, h}
		}
		return []status{h}
	}
	return nil
}
