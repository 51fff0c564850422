//go:build faults

package systemtest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The kinds of calls: those that change something.
const (
	offer   = "offer"
	accept  = "accept"
	reject  = "reject"
	release = "release"
)

// service is a service of a pool.
type service struct{ pool, name string }

func (s service) path() string { return "/v1/pools/" + s.pool + "/services/" + s.name }

// call is one call and its answer. Every holder has a name and a secret that no other has, and one client makes its calls,
// one after the other.
type call struct {
	kind       string
	service    service
	name       string
	secret     string
	port       int   // in the answer; of a release: that of the allocation
	fence      int64 // the same
	server     string
	start, end time.Time

	status    int       // 0: no answer came
	code      string    // of an error: its code in the contract, or what the network said
	problem   bool      // the error is application/problem+json
	answered  string    // the name in the answer
	expiresAt time.Time // of an offer
}

// acknowledged is true where the call did what it should.
func (c call) acknowledged() bool { return c.status >= 200 && c.status < 300 }

// refused is true where the answer is definite, and is that nothing was done.
func (c call) refused() bool { return c.status >= 400 && c.status < 500 && c.problem }

// undone is true where nothing was done, and the call is worth repeating.
func (c call) undone() bool {
	return c.status == http.StatusServiceUnavailable && c.problem && c.code == "UNAVAILABLE"
}

// unknown is true where the call may have been done, or may not.
func (c call) unknown() bool { return !c.acknowledged() && !c.refused() && !c.undone() }

func (c call) String() string {
	return fmt.Sprintf("%s %s of %s %s (port %d, fence %d) at %s: %d %s",
		c.start.Format("15:04:05.000"), c.kind, c.service.pool+"/"+c.service.name, c.name, c.port, c.fence, c.server, c.status, c.code)
}

// ledger records every call of a scenario.
type ledger struct {
	mu      sync.Mutex
	calls   []call
	written atomic.Int64 // acknowledged calls
}

func (l *ledger) add(c call) {
	l.mu.Lock()
	l.calls = append(l.calls, c)
	l.mu.Unlock()
	if c.acknowledged() {
		l.written.Add(1)
	}
}

// size is how many calls were made so far.
func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}

// all returns the calls so far, in the order in which they began.
func (l *ledger) all() []call {
	l.mu.Lock()
	calls := slices.Clone(l.calls)
	l.mu.Unlock()
	slices.SortStableFunc(calls, func(a, b call) int { return a.start.Compare(b.start) })
	return calls
}

// awaitWrites waits until n more calls have been acknowledged.
func (l *ledger) awaitWrites(t testing.TB, n int64) {
	t.Helper()
	enough := l.written.Load() + n
	eventually(t, fmt.Sprintf("%d more calls are acknowledged", n), func() bool { return l.written.Load() >= enough })
}

// figures is what a ledger adds up to.
type figures struct {
	calls        int
	acknowledged int            // allocations
	unavailable  int            // calls answered that nothing was done
	unknown      int            // calls without an answer, or answered that the outcome is unknown
	longestGap   time.Duration  // without a successful write
	answers      map[string]int // calls by kind, status and code
}

func (l *ledger) figures() figures {
	f := figures{answers: map[string]int{}}
	calls := l.all()
	accepted := map[string]bool{}
	var moments []time.Time // of successful writes, between the first call and the last
	for _, c := range calls {
		f.calls++
		f.answers[c.answer()]++
		switch {
		case c.acknowledged():
			moments = append(moments, c.end)
			if c.kind == accept {
				accepted[c.secret] = true
			}
		case c.undone():
			f.unavailable++
		case c.unknown():
			f.unknown++
		}
	}
	f.acknowledged = len(accepted)
	if len(calls) > 0 {
		last := slices.MaxFunc(calls, func(a, b call) int { return a.end.Compare(b.end) })
		f.longestGap = longestGap(append(moments, calls[0].start, last.end))
	}
	return f
}

// longestGap returns the longest time between a moment and the next one.
func longestGap(moments []time.Time) (longest time.Duration) {
	slices.SortFunc(moments, time.Time.Compare)
	for i := 1; i < len(moments); i++ {
		longest = max(longest, moments[i].Sub(moments[i-1]))
	}
	return longest
}

// answer names how a call was answered: its kind, the status, and an error's code.
func (c call) answer() string {
	if c.status == 0 {
		return c.kind + " without an answer"
	}
	text := fmt.Sprintf("%s %d", c.kind, c.status)
	if c.acknowledged() {
		return text
	}
	if !c.problem {
		return text + " that is no problem+json"
	}
	return text + " " + c.code
}

// line is the one line that a scenario reports.
func (f figures) line(found findings) string {
	return fmt.Sprintf("%d calls, %d allocations acknowledged, %d unavailable, %d unknown, %d lost, longest time without a successful write %s (%s)",
		f.calls, f.acknowledged, f.unavailable, f.unknown, found.count(lost), f.longestGap.Round(time.Millisecond), f.list())
}

// list says how many calls were answered how.
func (f figures) list() string {
	var answers []string
	for _, answer := range slices.Sorted(maps.Keys(f.answers)) {
		answers = append(answers, fmt.Sprintf("%s: %d", answer, f.answers[answer]))
	}
	return strings.Join(answers, ", ")
}
