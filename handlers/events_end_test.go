package handlers

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
	"portmaster/handlers/identity"
)

func (a *api) streams() int { return int(a.server.streams.open.Load()) }

// A stream outlasts the time limit of an answer, and says by beats that it is alive.
func TestEventsOutlastTheTimeouts(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store, func(s *settings) { s.server.ReadTimeout, s.server.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond })
		a.server.beat = 20 * time.Millisecond
		a.define("web", "2000-2009")
		s := a.follow("/v1/services/web/events")
		s.want("ready")
		time.Sleep(time.Second)
		a.happens("web", "allocated", "name", "a", "port", "2000")
		s.want("allocated")
		if s.beats < 3 {
			t.Errorf("%d beats", s.beats)
		}
	})
}

func TestEventsEndWhenTheServerDrains(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t))
	a.define("web", "2000-2009")
	streams := []*sse{a.follow("/v1/services/web/events"), a.follow("/v1/events")}
	for _, s := range streams {
		s.want("ready")
	}
	a.server.Drain()
	for _, s := range streams {
		if e, ok := s.next(); ok || s.err != io.EOF {
			t.Errorf("the stream goes on with %v, %v", e, s.err)
		}
	}
	a.get("/v1/services/web/events").problem(503, "UNAVAILABLE")
	soon(t, "they are over", func() bool { return a.streams() == 0 })
	contains(t, a.get("/metrics").body, `portmaster_streams_ended_total{reason="drained"} 2`+"\n", "portmaster_streams 0\n")
}

func TestMostStreams(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.MaxStreams = 2 })
	a.define("web", "2000-2009")
	a.do("HEAD", "/v1/services/web/events", "").want(200)
	a.get("/v1/services/none/events").problem(404, "SERVICE_NOT_FOUND")
	a.get("/v1/services/web/events?last_event_id=x").problem(400, "INVALID")
	soon(t, "those hold no place", func() bool { return a.streams() == 0 })
	a.follow("/v1/events").want("ready")
	second := a.follow("/v1/events")
	second.want("ready")
	refused := a.get("/v1/events")
	refused.problem(503, "UNAVAILABLE")
	equal(t, "Retry-After", refused.header.Get("Retry-After"), "5")
	second.body.Close()
	soon(t, "its place is free", func() bool { return a.streams() == 1 })
	a.follow("/v1/events").want("ready")
}

// Whose token is taken away, or no longer has the service in its scope, hears no more.
func TestEventsEndWithTheToken(t *testing.T) {
	t.Parallel()
	store := storetest.Mini(t)
	reader, line := newToken(t, "reader", identity.Reader, "default/w*", "-")
	narrow := strings.Replace(line, "default/w*", "default/x*", 1)
	_, other := newToken(t, "other", identity.Reader, "default/*", "-")
	operator, operatorLine := newToken(t, "operator", identity.Operator, "*/*", "-")
	a, file := newGuardedAPI(t, store, line, operatorLine)
	a.server.beat = 50 * time.Millisecond
	as := a.as(operator)
	as("PUT", "/v1/services/web", `{"start":2000,"end":2009}`).want(201)
	as("PUT", "/v1/services/db", `{"start":3000,"end":3009}`).want(201)
	bearer := []string{"Authorization", "Bearer " + reader}
	a.get("/v1/services/db/events", bearer...).problem(403, "FORBIDDEN")
	a.get("/v1/pools/other/events", bearer...).problem(403, "FORBIDDEN")
	a.get("/v1/events").problem(401, "UNAUTHENTICATED")
	web, all := a.follow("/v1/services/web/events", bearer...), a.follow("/v1/events", bearer...)
	web.want("ready")
	all.want("ready")
	a.happens("db", "allocated", "name", "secret", "port", "3000")
	a.happens("web", "allocated", "name", "a", "port", "2000")
	web.want("allocated")
	contains(t, all.want("allocated").data, `"service":"web"`) // and nothing of the other

	file.write(narrow, operatorLine)
	if e, ok := web.next(); ok || web.err != io.EOF {
		t.Errorf("the stream of a service that is out of scope goes on with %v, %v", e, web.err)
	}
	a.happens("web", "released", "name", "a", "port", "2000")
	file.write(other, operatorLine)
	if e, ok := all.next(); ok || all.err != io.EOF {
		t.Errorf("the stream of a token that is taken away goes on with %v, %v", e, all.err)
	}
}

// A client that does not read holds its place no longer than a write may take.
func TestEventsEndWhenTheClientStalls(t *testing.T) {
	t.Parallel()
	store := storetest.Mini(t)
	a := newAPI(t, store, func(s *settings) { s.server.WriteTimeout = 300 * time.Millisecond })
	a.define("web", "2000-2009")
	conn := a.dial()
	conn.SetReadBuffer(4 << 10)
	io.WriteString(conn, "GET /v1/services/web/events HTTP/1.1\r\nHost: a\r\n\r\n")
	soon(t, "it streams", func() bool { return a.streams() == 1 })
	id := strings.Repeat("x", 4000)
	soon(t, "it is ended", func() bool {
		for range 50 {
			store.Admin.XAdd(t.Context(), &redis.XAddArgs{
				Stream: store.Prefix + ":{default}:events:web", MaxLen: 100, Values: []string{"event", "allocated", "request", id},
			})
		}
		return a.streams() == 0
	})
}

// Clients that come and go leave nothing behind.
func TestEventsOfManyWhoLeave(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.Concurrency = 1000 })
	a.define("web", "2000-2009")
	for i := range 1000 {
		conn := a.dial()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", []string{"/v1/events", "/v1/services/web/events"}[i%2])
		if i%4 < 2 {
			bufio.NewReader(conn).ReadString('\n')
		}
		conn.SetLinger(0)
		conn.Close()
	}
	soon(t, "all are gone", func() bool { return a.streams() == 0 && a.server.connections.Open() <= 2 })
	soon(t, "nothing runs on", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !bytes.Contains(stacks, []byte("(*follower)")) && !bytes.Contains(stacks, []byte("(*eventStream)"))
	})
}

// The watcher of hang-ups reads from a TLS connection; a stream writes to it.
func TestEventsOverTLS(t *testing.T) {
	t.Parallel()
	a := newAPI(t, storetest.Mini(t))
	a.define("web", "2000-2009")
	addr, trust := a.overTLS()
	conn := dialTLS(t, addr, trust)
	io.WriteString(conn, "GET /v1/services/web/events HTTP/1.1\r\nHost: a\r\n\r\n")
	s := &sse{t: t, lines: bufio.NewReader(conn)}
	s.want("ready")
	for i := range 300 {
		a.happens("web", "allocated", "name", fmt.Sprint("n", i), "port", "2000")
		contains(t, s.want("allocated").data, fmt.Sprintf(`"name":"n%d"`, i))
		if i%100 == 0 {
			time.Sleep(300 * time.Millisecond) // the watcher looks meanwhile
		}
	}
	conn.CloseWrite() // ends TLS only
	soon(t, "it is gone", func() bool { return a.streams() == 0 })
}
