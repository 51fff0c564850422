//go:build faults

package systemtest

import (
	"slices"
	"testing"
	"time"
)

// story is a made-up history and its end. The clients of the one that these tests begin with were told nothing wrong.
type story struct {
	calls []call
	end   state
	rules rules
}

var (
	began   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	stories = service{"default", "stories"}
)

// tell adds a call that took a second, and returns it.
func (s *story) tell(second int, kind, name string, port int, fence int64, status int, code string) *call {
	c := call{
		kind: kind, service: stories, name: name, secret: "secret of " + name, port: port, fence: fence,
		start: began.Add(time.Duration(second) * time.Second), end: began.Add(time.Duration(second+1) * time.Second),
		status: status, code: code, problem: code != "",
	}
	if kind == offer || kind == accept {
		c.answered = name
	}
	if kind == offer {
		c.expiresAt = c.end.Add(30 * time.Minute)
	}
	s.calls = append(s.calls, c)
	return &s.calls[len(s.calls)-1]
}

// of returns the nth call of a kind that a name made.
func (s *story) of(name, kind string, n int) *call {
	for i := range s.calls {
		if c := &s.calls[i]; c.name == name && c.kind == kind {
			if n == 0 {
				return c
			}
			n--
		}
	}
	panic("no such call")
}

// drop takes out the nth call of a kind that a name made.
func (s *story) drop(name, kind string, n int) {
	gone := s.of(name, kind, n)
	s.calls = slices.DeleteFunc(s.calls, func(c call) bool { return c == *gone })
}

// count makes the counts those of the lists.
func (s *story) count() {
	s.end.ports = portCounts{Total: 10, Offered: len(s.end.offers), Allocated: len(s.end.allocations)}
	s.end.ports.Free = 10 - s.end.ports.Offered - s.end.ports.Allocated
}

func rightStory() *story {
	s := &story{}
	s.tell(0, offer, "holds", 5000, 0, 201, "")
	s.tell(2, accept, "holds", 5000, 1, 201, "")
	s.tell(0, offer, "left", 5001, 0, 201, "")
	s.tell(2, accept, "left", 0, 0, 504, "OUTCOME_UNKNOWN")
	s.tell(4, accept, "left", 5001, 2, 200, "")
	s.tell(6, release, "left", 5001, 2, 504, "OUTCOME_UNKNOWN")
	s.tell(8, release, "left", 5001, 2, 404, "PORT_NOT_FOUND")
	s.tell(10, offer, "stays", 5001, 0, 201, "")
	s.tell(12, accept, "stays", 5001, 3, 201, "")
	s.tell(14, release, "stays", 5001, 3, 503, "UNAVAILABLE")
	s.tell(10, offer, "rejects", 5002, 0, 201, "")
	s.tell(12, reject, "rejects", 0, 0, 204, "")
	s.tell(10, offer, "may have an offer", 0, 0, 504, "OUTCOME_UNKNOWN")
	s.tell(10, offer, "may have accepted", 5004, 0, 201, "")
	s.tell(14, accept, "may have accepted", 0, 0, 504, "OUTCOME_UNKNOWN")
	s.tell(10, offer, "got none", 0, 0, 409, "EXHAUSTED")
	s.end.allocations = []listing{{"holds", 5000, 1}, {"stays", 5001, 3}, {"may have accepted", 5004, 4}}
	s.end.offers = []listing{{Name: "may have an offer", Port: 5003}}
	s.count()
	return s
}

// onlyLeft lists the allocation of "left", as if nobody had had its port since.
func onlyLeft(s *story) {
	s.drop("stays", release, 0)
	s.drop("stays", accept, 0)
	s.drop("stays", offer, 0)
	s.end.allocations[1] = listing{"left", 5001, 2}
}

// TestLedger tells the checkers a right story, and stories that each of them has to find wrong, or right though they look wrong.
func TestLedger(t *testing.T) {
	for name, test := range map[string]struct {
		turn func(s *story)
		want findings // their kinds
	}{
		"all is right":          {func(*story) {}, nil},
		"an allocation is gone": {func(s *story) { s.end.allocations = s.end.allocations[1:]; s.count() }, findings{{fault: lost}}},
		"a first release finds nothing": {
			func(s *story) { s.drop("left", release, 0) }, findings{{fault: lost}}},
		"a repeated accept makes the allocation anew": {
			func(s *story) { s.tell(20, accept, "holds", 5000, 1, 201, "") }, findings{{fault: lost}}},
		"a repeated accept finds no offer after a minute": {
			func(s *story) { s.tell(80, accept, "holds", 0, 0, 404, "OFFER_NOT_FOUND") }, nil},
		"an allocation is gone, and all can tell": {func(s *story) {
			s.tell(20, accept, "holds", 0, 0, 404, "OFFER_NOT_FOUND")
			s.tell(22, release, "holds", 5000, 1, 404, "PORT_NOT_FOUND")
			s.end.allocations = s.end.allocations[1:]
			s.count()
		}, findings{{fault: lost}}},
		"an accept finds no offer": {func(s *story) {
			s.tell(20, offer, "late", 5005, 0, 201, "")
			s.tell(22, accept, "late", 0, 0, 404, "OFFER_NOT_FOUND")
		}, findings{{fault: lostOffer}}},
		"an accept finds an expired offer no more": {func(s *story) {
			s.tell(20, offer, "late", 5005, 0, 201, "").expiresAt = began.Add(22 * time.Second)
			s.tell(22, accept, "late", 0, 0, 404, "OFFER_NOT_FOUND")
		}, nil},
		"a reject finds no offer": {func(s *story) {
			c := s.of("rejects", reject, 0)
			c.status, c.code, c.problem = 404, "OFFER_NOT_FOUND", true
		}, findings{{fault: lostOffer}}},
		"a repeated offer is made anew": {
			func(s *story) { s.tell(1, offer, "holds", 5000, 0, 201, "") }, findings{{fault: lostOffer}}},
		"a port is accepted before its holder leaves": {func(s *story) {
			s.of("left", release, 0).start = began.Add(13500 * time.Millisecond)
			s.of("left", release, 1).start = began.Add(14500 * time.Millisecond)
		}, findings{{fault: twoHolders}}},
		"a port is listed twice": {func(s *story) { s.end.offers[0].Port = 5000 }, findings{{fault: twoHolders}}},
		"a fence is given twice": {func(s *story) {
			s.of("stays", accept, 0).fence = 2
			s.end.allocations[1].Fence = 2
		}, findings{{fault: disorder}}},
		"a fence is smaller than an earlier one": {func(s *story) { s.of("left", accept, 1).fence = 9 }, findings{{fault: disorder}}},
		"an allocation of nobody": {func(s *story) {
			s.end.allocations = append(s.end.allocations, listing{"nobody", 5008, 9})
			s.count()
		}, findings{{fault: leak}}},
		"an allocation that was released":    {onlyLeft, findings{{fault: leak}}},
		"an allocation that may be released": {func(s *story) { onlyLeft(s); s.drop("left", release, 1) }, nil},
		"an offer of nobody":                 {func(s *story) { s.end.offers[0].Name = "nobody" }, findings{{fault: leak}}},
		"an offer that was rejected": {func(s *story) {
			s.end.offers = append(s.end.offers, listing{Name: "rejects", Port: 5002})
			s.count()
		}, findings{{fault: leak}}},
		"a port is neither free nor held":    {func(s *story) { s.end.ports.Free-- }, findings{{fault: leak}}},
		"an offer is counted and not listed": {func(s *story) { s.end.ports.Free--; s.end.ports.Offered++ }, findings{{fault: leak}}},
		"an accept has another port than the offer": {func(s *story) {
			s.of("holds", offer, 0).port = 5008
		}, findings{{fault: changed}}},
		"a repeated accept has another fence": {func(s *story) { s.tell(20, accept, "holds", 5000, 9, 200, "") }, findings{{fault: changed}}},
		"an offer is for another name":        {func(s *story) { s.of("rejects", offer, 0).answered = "holds" }, findings{{fault: changed}}},
		"an internal error":                   {func(s *story) { s.tell(20, offer, "new", 0, 0, 500, "INTERNAL") }, findings{{fault: unexpected}}},
		"a code with another status":          {func(s *story) { s.tell(20, offer, "new", 0, 0, 500, "UNAVAILABLE") }, findings{{fault: unexpected}}},
		"a load balancer's own error, where allowed": {func(s *story) {
			s.rules.balancer = true
			s.tell(20, offer, "new", 0, 0, 503, "")
		}, nil},
		"no answer": {func(s *story) { s.tell(20, offer, "new", 0, 0, 0, "EOF") }, findings{{fault: network}}},
		"no answer, where allowed": {func(s *story) {
			s.rules.network = true
			s.tell(20, offer, "new", 0, 0, 0, "EOF")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := rightStory()
			test.turn(s)
			l := &ledger{}
			for _, c := range s.calls {
				l.add(c)
			}
			found := check(l.all(), map[service]state{stories: s.end}, s.rules)
			if len(found) != len(test.want) || len(found) > 0 && found.count(test.want[0].fault) != len(found) {
				t.Errorf("found %v, want %v", found, test.want)
			}
		})
	}
}

func TestFigures(t *testing.T) {
	l := &ledger{}
	for _, c := range rightStory().calls {
		l.add(c)
	}
	f := l.figures()
	if f.calls != 16 || f.acknowledged != 3 || f.unavailable != 1 || f.unknown != 4 || f.longestGap != 6*time.Second {
		t.Errorf("%+v", f)
	}
	if f.answers["release 404 PORT_NOT_FOUND"] != 1 || f.answers["offer 201"] != 5 {
		t.Errorf("%v", f.answers)
	}
	if l.written.Load() != 9 {
		t.Errorf("%d calls are counted as acknowledged", l.written.Load())
	}
}
