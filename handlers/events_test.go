package handlers

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// sse is a stream of events that a test reads.
type sse struct {
	t     testing.TB
	lines *bufio.Reader
	body  interface{ Close() error }
	beats int
	err   error // that ended it
}

// follow opens a stream. It ends with the test.
func (a *api) follow(path string, headers ...string) *sse {
	a.t.Helper()
	c := a.start("GET", path, "", headers...)
	<-c.done
	if c.err != nil || c.said.StatusCode != http.StatusOK {
		a.t.Fatalf("%s: %v %v", path, c.err, c.said)
	}
	a.t.Cleanup(c.hangUp)
	a.t.Cleanup(func() { c.said.Body.Close() })
	return &sse{t: a.t, lines: bufio.NewReader(c.said.Body), body: c.said.Body}
}

// sseEvent is one event of a stream.
type sseEvent struct{ kind, id, data string }

// next reads an event. ok is false at the end of the stream.
func (s *sse) next() (e sseEvent, ok bool) {
	for {
		line, err := s.lines.ReadString('\n')
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case err != nil:
			s.err = err
			return e, false
		case field == "id":
			e.id = value
		case field == "event":
			e.kind = value
		case field == "data":
			e.data = value
		case line == "\n" && e.kind != "":
			return e, true
		case line == ": beat\n":
			s.beats++
		}
	}
}

// want reads an event of a kind.
func (s *sse) want(kind string) sseEvent {
	s.t.Helper()
	e, ok := s.next()
	if !ok || e.kind != kind {
		s.t.Fatalf("the stream has %+v, want %s", e, kind)
	}
	return e
}

// happens writes an event by hand.
func (a *api) happens(service, kind string, fields ...string) {
	a.t.Helper()
	err := a.store.Admin.XAdd(a.t.Context(), &redis.XAddArgs{
		Stream: a.store.Prefix + ":{default}:events:" + service, Values: append([]string{"event", kind}, fields...),
	}).Err()
	if err != nil {
		a.t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond) // events of a millisecond are in no order
}

func TestEvents(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("web", "2000-2009")
		a.define("db", "3000-3009")
		web, all := a.follow("/v1/services/web/events"), a.follow("/v1/pools/default/events")
		ready := web.want("ready")
		all.want("ready")
		a.happens("web", "allocated", "name", "a", "port", "2001", "count", "2", "fence", "17", "owner", "ci", "request", `"\`)
		a.happens("db", "allocated", "name", "b", "port", "3000", "until", "1795362981325")
		first := web.want("allocated")
		contains(t, first.data, `{"id":"`+first.id+`","time":"`,
			`,"event":"allocated","pool":"default","service":"web","name":"a","port":2001,"count":2,"fence":17,"owner":"ci","request_id":"\"\\"}`)
		equal(t, "of the pool", all.want("allocated"), first)
		second := all.want("allocated")
		contains(t, second.data, `"pool":"default","service":"db","name":"b","port":3000,"until":"2026-11-22T15:56:21.325Z"}`)
		equal(t, "beats", all.beats, 1)
		again := a.follow("/v1/services/web/events", "Last-Event-ID", ready.id)
		equal(t, "ready again", again.want("ready").id, ready.id)
		equal(t, "again", again.want("allocated"), first)
		again = a.follow("/v1/events?last_event_id=" + first.id)
		again.want("ready")
		equal(t, "again", again.want("allocated"), second)
	})
}
