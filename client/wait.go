package client

import (
	"context"
	"strings"
	"sync"
	"time"
)

// Wait says how long a call for ports may wait for its turn if every port is taken. The zero value is not to wait.
//
// The server bounds how long one request waits, to a minute unless it is set to something else. A call that may wait longer sends
// several requests one after the other, and each begins at the end of the waitlist.
type Wait struct {
	Longest  time.Duration  // the call then fails with what it would have got without waiting
	Progress func(Progress) // nil: none. Told every two seconds while the call waits, by one goroutine at a time
}

// Progress is what is known of a call that waits.
type Progress struct {
	Waited  time.Duration // since the call began
	Waiting int           // calls in the waitlist of the service, this one included; -1 if the server does not answer
}

// progressInterval is how often Progress is told. A call that is over sooner is not told of.
const progressInterval = 2 * time.Second

// waiting is a call that waits. A nil one does not.
type waiting struct {
	until time.Time
	most  time.Duration // of one request, as far as is known
	asked time.Duration // by the last request
}

func newWaiting(w Wait) *waiting {
	if w.Longest <= 0 {
		return nil
	}
	return &waiting{until: time.Now().Add(w.Longest), most: w.Longest}
}

func (w *waiting) longest() time.Duration {
	if w == nil {
		return 0
	}
	return w.most
}

// left returns how long the call may still wait.
func (w *waiting) left() time.Duration {
	if w == nil {
		return 0
	}
	return max(time.Until(w.until), 0)
}

// next returns how long the next request may wait: not at all at the end.
func (w *waiting) next() time.Duration {
	if w == nil {
		return 0
	}
	w.asked = min(w.left(), w.most).Truncate(time.Millisecond)
	return w.asked
}

// goesOn reports whether the call is to wait on at once: because the request waited for as long as the server lets it, or because it
// asked for more than that.
func (w *waiting) goesOn(failed *Error, sent time.Time) bool {
	if w == nil || w.asked == 0 {
		return false
	}
	if failed.Code == ErrExhausted.Code { // soon after it was sent, waiting would not help
		return w.left() > 0 && time.Since(sent) >= w.asked-100*time.Millisecond
	}
	if failed.Code != ErrInvalid.Code || len(failed.Fields) != 1 || failed.Fields[0].Field != "wait" {
		return false
	}
	_, most, ok := strings.Cut(failed.Fields[0].Detail, "within 0s-")
	bound, err := time.ParseDuration(most)
	if !ok || err != nil || bound >= w.asked {
		return false
	}
	if w.most = bound; bound == 0 {
		w.until = sent
	}
	return true
}

// report tells of the progress of a call until stop is called, which waits for the last word.
func (c *Client) report(ctx context.Context, service string, w Wait) (stop func()) {
	if w.Progress == nil || w.Longest <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	began := time.Now()
	var told sync.WaitGroup
	told.Go(func() {
		for sleep(ctx, progressInterval) {
			p := Progress{Waiting: -1}
			path, _ := c.path("services", service)
			var s Service
			if c.attempt(ctx, call{method: "GET", path: path, answer: &s, timeout: progressInterval}, &reply{}) == nil {
				p.Waiting = s.Waiting
			}
			if p.Waited = time.Since(began); ctx.Err() == nil {
				w.Progress(p)
			}
		}
	})
	return func() { cancel(); told.Wait() }
}
