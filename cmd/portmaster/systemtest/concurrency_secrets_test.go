//go:build !faults

package systemtest

// life is the status of a secret: it stands for nothing, is open, or was accepted, rejected, or released with it. Once it was an
// offer's it is over when its allocation is gone otherwise; else a claim may be made again with it.
type life struct {
	stage   string
	offered bool
	port    int
	fence   int64
	expires int64
}

func (l life) during(e event) (all []status) {
	runs, ranOut := lasting(l.expires, e)
	if runs {
		all = append(all, l)
	}
	if ranOut {
		all = append(all, l.gone())
	}
	return all
}

// gone is a life whose allocation is gone, not by its secret.
func (l life) gone() life {
	if l.offered {
		return life{stage: "over", offered: true}
	}
	return life{}
}

func (l life) after(e event) []status {
	accepted := life{"accepted", l.stage == "open" || l.offered, e.port, e.fence, e.expires}
	switch e.act + " " + e.code {
	case "offer 201":
		return only(l.stage == "", life{stage: "open", port: e.port})
	case "offer 200":
		return only(l.stage == "open" && l.port == e.port, l)
	case "offer NAME_TAKEN", "claim NAME_TAKEN", "offer EXHAUSTED", "claim EXHAUSTED", "offer PORT_TAKEN", "claim PORT_TAKEN",
		"offer INVALID", "claim INVALID":
		return only(l.stage == "", l)
	case "accept INVALID":
		return only(l.stage == "open", l)
	case "claim 201": // of an offer, whose port it gets, or of nothing
		return only(l.stage == "" || l.stage == "open" && l.port == e.port, accepted)
	case "accept 201":
		return only(l.stage == "open" && l.port == e.port, accepted)
	case "claim 200", "accept 200", "renew 200":
		same := l.stage == "accepted" && l.port == e.port && l.fence == e.fence && (l.expires == e.expires || e.act == "renew")
		return only(same, accepted)
	case "offer OFFER_REJECTED", "claim OFFER_REJECTED", "accept OFFER_REJECTED":
		return only(l.stage == "rejected", l)
	case "offer OFFER_ACCEPTED":
		return only(l.stage == "accepted" || l.stage == "released" || l.stage == "over", l)
	case "claim OFFER_ACCEPTED":
		return only(l.stage == "released" || l.stage == "over", l)
	case "accept OFFER_NOT_FOUND", "reject OFFER_NOT_FOUND":
		return only(l.stage == "" || l.stage == "released" || l.stage == "over" || e.drawn, l)
	case "reject OFFER_ACCEPTED":
		return only(l.stage == "accepted", l)
	case "reject 204":
		return only(l.stage == "open" || l.stage == "rejected", life{stage: "rejected"})
	}
	return l.afterGivenBack(e)
}

func (l life) afterGivenBack(e event) []status {
	named := !e.byPort || l.port == e.port // the call names what the secret has, or had
	here := l.stage == "accepted" && named
	switch e.act + " " + e.code {
	case "renew INVALID":
		return only(here && (l.expires == 0 || e.impossible), l)
	case "renew SECRET_MISMATCH", "renew PORT_NOT_FOUND":
		return only(!here, l)
	case "release own 204":
		return only(here || l.stage == "released" && named, life{stage: "released", port: l.port})
	case "release own SECRET_MISMATCH", "release own PORT_NOT_FOUND":
		return only(!here && !(l.stage == "released" && named), l)
	case "release 204":
		return only(l.stage == "accepted" && l.fence == e.condition, l.gone())
	case "maybe released":
		if l.fence == e.condition {
			return []status{l.gone(), l}
		}
		return []status{l}
	}
	return nil
}
