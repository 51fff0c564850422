package allocator

import "slices"

// outcomes is all that the sequences must have seen: each answer that a call can give, "new" if it is Created, and the notes of the
// model on what an answer does not show. Lists of wants have an "s", and calls that may wait begin with "waiting".
var outcomes = slices.Concat(
	each("create", "new", CodeServiceExists, CodeRangeOverlap),
	each("put", "new", "", CodeRangeOverlap, CodeRangeInUse),
	each("change", "", CodeServiceNotFound, CodeRangeOverlap, CodeRangeInUse, CodeInvalid),
	each("remove", "", CodeServiceNotFound, CodeServiceInUse),
	each("offer", taking...), each("claim", taking...), each("offers", ofLists...), each("claims", ofLists...),
	each("waiting-offer", lining...), each("waiting-claim", lining...), each("waiting-offers", "new", "waits"), each("waiting-claims", "new", "waits"),
	each("beat", ""), each("look", ""), each("leave", ""),
	each("accept", "new", "", CodeServiceNotFound, CodeOfferNotFound, CodeOfferRejected, CodeNotOwner),
	each("reject", "new", "", CodeServiceNotFound, CodeOfferNotFound, CodeOfferAccepted, CodeNotOwner),
	each("renew", "", CodeServiceNotFound, CodePortNotFound, CodeSecretMismatch, CodeInvalid, CodeNotOwner),
	each("label", "", CodeServiceNotFound, CodePortNotFound, CodeSecretMismatch, CodeInvalid, CodeNotOwner),
	each("release", "new", "", CodeServiceNotFound, CodePortNotFound, CodeSecretMismatch, CodePreconditionFailed, CodeNotOwner),
	[]string{
		"got a lease by default", "asks for too long a lease", "accepted for too long a lease", "renewed for less than before",
		"existed", "claimed long ago", "claimed with the lease of its offer", "claimed with the labels of its offer", "its secret is of what was accepted", "its secret is of what was released",
		"its secret is of what was over", "several are at fault",
		"got what it prefers", "got another than it prefers", "took a run of fresh ports", "gathered", "gathered in vain",
		"picked after it cooled", "picked after its rest", "picked after a lease", "passed over what cools",
		"the lease has run out", "renewed what had no lease", "renewed what had one", "quarantined", "put to rest", "came back while it rests",
		"released by secret", "released again", "released in use", "acts on what another owns",
		"took a multiple of a short run", "no run has a multiple", "led to a port by its name", "led to a port that is not free", "returned to a port that cools",
		"its turn", "not its turn", "passes one that waits for a row", "lets one before it that waits for a row", "a place was lost", "removed while some wait",
		"event allocated", "event released", "event renewed", "event in_use", "event defined", "event changed", "event removed",
		"a lease is said to have ended",
	},
)

// How calls for ports can end. Of lists and of calls that may wait, only what is not too rare must be seen.
var (
	ofLists = []Code{"new", "", CodeServiceNotFound, CodeNameTaken, CodeExhausted, CodePortTaken, CodeInvalid, CodeQuotaExceeded}
	taking  = append(ofLists[:len(ofLists):len(ofLists)], CodeOfferAccepted, CodeOfferRejected, CodeNotOwner)
	lining  = []Code{"new", "", "waits", CodeServiceNotFound, CodeNameTaken, CodeExhausted, CodeInvalid, CodeQuotaExceeded}
)

func each(act string, ends ...Code) (all []string) {
	for _, end := range ends {
		if end == "" {
			all = append(all, act)
		} else {
			all = append(all, act+"/"+string(end))
		}
	}
	return all
}
