//go:build faults

package systemtest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"
)

// fault is a kind of thing that must not be.
type fault string

const (
	lost       fault = "lost"              // an acknowledged allocation is gone, or is another one
	lostOffer  fault = "offer lost"        // an acknowledged offer was gone before its time
	twoHolders fault = "two holders"       // a port was, or is, two holders' at the same time
	disorder   fault = "fence"             // a fence was given twice, or is smaller than an earlier one
	leak       fault = "leak"              // something is held that nobody holds, or the counts do not add up
	changed    fault = "changed answer"    // the same secret got another answer
	unexpected fault = "unexpected answer" // the contract has no such answer to such a call
	network    fault = "no answer"         // the server was not there, or its answer never came
)

// finding is one fault that was found.
type finding struct {
	fault  fault
	detail string
}

type findings []finding

func (f findings) count(kind fault) (n int) {
	for _, found := range f {
		if found.fault == kind {
			n++
		}
	}
	return n
}

// only returns the findings of some kinds.
func (f findings) only(kinds ...fault) findings {
	return slices.DeleteFunc(slices.Clone(f), func(found finding) bool { return !slices.Contains(kinds, found.fault) })
}

// requireNone fails the test for each fault that was found. Of each kind it shows the first few.
func (f findings) requireNone(t testing.TB) {
	t.Helper()
	const few = 10
	shown := map[fault]int{}
	for _, found := range f {
		if shown[found.fault]++; shown[found.fault] <= few {
			t.Errorf("%s: %s", found.fault, found.detail)
		}
	}
	for kind, n := range shown {
		if n > few {
			t.Errorf("%s: %d more", kind, n-few)
		}
	}
}

// rules says what a scenario allows.
type rules struct {
	network  bool // calls without an answer, since servers or their network die
	balancer bool // a load balancer's own 502, 503 and 504

	clockStep time.Duration // Redis' clock stepped ahead by so much: what is remembered for a while is so for less
}

// check compares what the clients were told with what is there in the end, when no client calls any more.
func check(calls []call, ends map[service]state, allowed rules) findings {
	h := newHistory(calls, allowed.clockStep)
	h.checkAnswers(calls, allowed)
	h.checkHolders()
	h.checkFences()
	for of, end := range ends {
		h.checkPresent(of, end)
		h.checkListed(of, end)
		h.checkCounts(of, end)
	}
	return h.findings
}

// The contract: how each kind of call may be answered.
var (
	successes = map[string][]int{
		offer:   {http.StatusCreated, http.StatusOK},
		accept:  {http.StatusCreated, http.StatusOK},
		reject:  {http.StatusNoContent},
		release: {http.StatusNoContent},
	}
	refusals = map[string]map[string]int{
		offer:   {"EXHAUSTED": http.StatusConflict},
		accept:  {"OFFER_NOT_FOUND": http.StatusNotFound},
		reject:  {"OFFER_NOT_FOUND": http.StatusNotFound},
		release: {"PORT_NOT_FOUND": http.StatusNotFound, "PRECONDITION_FAILED": http.StatusPreconditionFailed},
	}
	outages         = map[string]int{"UNAVAILABLE": http.StatusServiceUnavailable, "OUTCOME_UNKNOWN": http.StatusGatewayTimeout}
	balancerOutages = []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}
)

// checkAnswers finds answers that the contract does not name.
func (h *history) checkAnswers(calls []call, allowed rules) {
	seen := map[finding]int{}
	for _, c := range calls {
		switch {
		case c.status == 0:
			if !allowed.network {
				seen[finding{network, c.kind + ": " + c.code}]++
			}
		case c.acknowledged() && slices.Contains(successes[c.kind], c.status):
		case c.problem && (refusals[c.kind][c.code] == c.status || outages[c.code] == c.status):
		case !c.problem && allowed.balancer && slices.Contains(balancerOutages, c.status):
		default:
			seen[finding{unexpected, c.answer()}]++
		}
	}
	for f, n := range seen {
		h.find(f.fault, "%s, %d times", f.detail, n)
	}
}

// checkHolders finds ports that two holders were told to be theirs at the same time: from the answer to the accept until a
// release was sent.
func (h *history) checkHolders() {
	holders := map[string][]*tenure{}
	for _, l := range h.lives {
		if l.accepted != nil {
			of := l.accepted.service.pool + " " + strconv.Itoa(l.accepted.port)
			holders[of] = append(holders[of], l)
		}
	}
	for _, lives := range holders {
		slices.SortFunc(lives, func(a, b *tenure) int { return a.accepted.end.Compare(b.accepted.end) })
		last := lives[0] // to leave, of those before
		for _, l := range lives[1:] {
			if last.leaving.IsZero() || l.accepted.end.Before(last.leaving) {
				h.find(twoHolders, "%v, and %v", *last.accepted, *l.accepted)
			}
			if !last.leaving.IsZero() && (l.leaving.IsZero() || l.leaving.After(last.leaving)) {
				last = l
			}
		}
	}
}

// checkFences finds fences of a pool that were given twice, or that do not grow from one accept to a later one.
func (h *history) checkFences() {
	pools := map[string][]*tenure{}
	for _, l := range h.lives {
		if l.accepted != nil {
			pools[l.accepted.service.pool] = append(pools[l.accepted.service.pool], l)
		}
	}
	for _, begun := range pools {
		first := map[int64]*tenure{}
		for _, l := range begun {
			if other := first[l.accepted.fence]; other != nil {
				h.find(disorder, "given twice: %v, and %v", *other.accepted, *l.accepted)
			}
			first[l.accepted.fence] = l
		}
		ended := slices.Clone(begun)
		slices.SortFunc(begun, func(a, b *tenure) int { return a.decided.Compare(b.decided) })
		slices.SortFunc(ended, func(a, b *tenure) int { return a.accepted.end.Compare(b.accepted.end) })
		var highest *tenure // of the accepts that had ended
		for _, l := range begun {
			for ; ended[0].accepted.end.Before(l.decided); ended = ended[1:] {
				if highest == nil || ended[0].accepted.fence > highest.accepted.fence {
					highest = ended[0]
				}
			}
			if highest != nil && l.accepted.fence < highest.accepted.fence {
				h.find(disorder, "%v, and later %v", *highest.accepted, *l.accepted)
			}
		}
	}
}

// checkPresent finds acknowledged allocations that nobody can have released and that are not there.
func (h *history) checkPresent(of service, end state) {
	listed := map[string]listing{}
	for _, a := range end.allocations {
		listed[a.Name] = a
	}
	for _, l := range h.lives {
		if l.accepted == nil || l.accepted.service != of || !l.leaving.IsZero() {
			continue
		}
		if a := listed[l.accepted.name]; a.Port != l.accepted.port || a.Fence != l.accepted.fence {
			h.lose(l, "%v; in the end there is %+v", *l.accepted, a)
		}
	}
}

// checkListed finds what is held in the end by nobody who could know, and ports that are listed twice.
func (h *history) checkListed(of service, end state) {
	seen := map[int]string{}
	for _, held := range slices.Concat(end.allocations, end.offers) {
		if other, twice := seen[held.Port]; twice {
			h.find(twoHolders, "port %d of %s is listed for %s and for %s", held.Port, of.path(), other, held.Name)
		}
		seen[held.Port] = held.Name
	}
	for _, a := range end.allocations {
		if why := h.byName[owner{of, a.Name}].cannotHold(a); why != "" {
			h.find(leak, "%s has the allocation %+v, and %s", of.path(), a, why)
		}
	}
	for _, o := range end.offers {
		if why := h.byName[owner{of, o.Name}].cannotBeOffered(); why != "" {
			h.find(leak, "%s has the offer %+v, and %s", of.path(), o, why)
		}
	}
}

// checkCounts finds counts that differ from the lists.
func (h *history) checkCounts(of service, end state) {
	p := end.ports
	if p.Free+p.Offered+p.Allocated != p.Total || p.Offered != len(end.offers) || p.Allocated != len(end.allocations) {
		h.find(leak, "%s counts %+v, and lists %d offers and %d allocations", of.path(), p, len(end.offers), len(end.allocations))
	}
}

func (h *history) find(kind fault, format string, args ...any) {
	h.findings = append(h.findings, finding{kind, fmt.Sprintf(format, args...)})
}

// lose counts an allocation as lost, once.
func (h *history) lose(l *tenure, format string, args ...any) {
	if !l.lost {
		l.lost = true
		h.find(lost, format, args...)
	}
}
