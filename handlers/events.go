package handlers

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"portmaster/allocator"
	"portmaster/handlers/identity"
)

// Streams of events, as Server-Sent Events. fasthttp reads the body of such an answer from an eventStream, on the connection's own
// goroutine, and sends what each read returns before it reads on.

// beatInterval is how often a stream says that it is alive, and looks whether its caller may still read it.
const beatInterval = 5 * time.Second

// headerLastEventID is where a client that connects again says which event it got last.
const headerLastEventID = "Last-Event-ID"

// serviceEvents: GET /services/{service}/events
func (s *Server) serviceEvents(c *fiber.Ctx) error { return s.stream(c, param(c, "service")) }

// poolEvents: GET /events
func (s *Server) poolEvents(c *fiber.Ctx) error { return s.stream(c, "") }

// stream answers with the events of a service, or with those of all services of the pool that the caller's scope has.
func (s *Server) stream(c *fiber.Ctx, service string) error {
	if s.open.Err() != nil {
		return allocator.ErrDraining
	}
	after, err := lastEventID(c)
	if err != nil {
		return err
	}
	if !s.streams.enter() {
		return &allocator.Error{
			Code: allocator.CodeUnavailable, Detail: "the server has as many streams of events as it may", RetryAfter: beatInterval,
		}
	}
	var stream *eventStream
	defer func() {
		if stream == nil {
			s.streams.leave()
		}
	}()
	listener, err := s.allocator.Listen(c.UserContext(), pool(c), service, after)
	if err != nil {
		return err
	}
	stream = &eventStream{
		server: s, conn: c.Context().Conn(), listener: listener, pool: pool(c), service: service, caller: principalOf(c),
		authorization: string(c.Request().Header.Peek(fiber.HeaderAuthorization)), beat: time.NewTicker(s.beat),
		unsent: []byte(beat),
	}
	c.Set(fiber.HeaderContentType, "text/event-stream")
	c.Set(fiber.HeaderCacheControl, "no-store")
	c.Set("X-Accel-Buffering", "no") // nginx would collect events
	c.Context().SetBodyStream(stream, -1)
	return nil
}

// eventID matches the ids of events, with at most as many digits as surely fit.
var eventID = regexp.MustCompile(`^(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})$`)

// lastEventID returns the id of the last event that the client got, "" if it got none.
func lastEventID(c *fiber.Ctx) (id string, err error) {
	var faults []allocator.FieldError
	for _, given := range []struct{ field, id string }{
		{"last_event_id", c.Query("last_event_id")}, {headerLastEventID, c.Get(headerLastEventID)},
	} {
		if given.id != "" && !eventID.MatchString(given.id) {
			faults = append(faults, allocator.FieldError{Field: given.field, Detail: "is not the id of an event"})
		}
		if given.id != "" {
			id = strings.Clone(given.id)
		}
	}
	if faults != nil {
		return "", allocator.Invalid(faults...)
	}
	return id, nil
}

// eventStream is the body of an answer.
type eventStream struct {
	server        *Server
	conn          net.Conn
	listener      *allocator.Listener
	pool, service string // service "": all
	caller        identity.Principal
	authorization string
	beat          *time.Ticker
	unsent        []byte
	end           error // why nothing more comes
	closed        sync.Once
}

// beat is a comment, which clients ignore.
const beat = ": beat\n\n"

// Why a stream ended.
var (
	errLeft     = errors.New("left")    // the client did, or did not read
	errDrained  = errors.New("drained") // the server drains
	errNoAccess = errors.New("access")  // the caller may not read it any more
	errPanicked = errors.New("panic")
)

// Read waits for what comes next. An end is io.EOF: the client sees that the answer is complete, and may ask for the rest.
func (e *eventStream) Read(p []byte) (n int, err error) {
	defer func() { // fasthttp would end the connection without a line in the log
		if v := recover(); v != nil {
			e.server.log.Error("internal error", slog.Any("error", &panicked{value: v}), slog.String("stack", string(debug.Stack())))
			e.end = errPanicked
			n, err = 0, io.EOF
		}
	}()
	for len(e.unsent) == 0 && e.end == nil {
		e.collect()
	}
	if err := e.conn.SetWriteDeadline(time.Now().Add(e.server.sending)); err != nil {
		return 0, err
	}
	if len(e.unsent) == 0 {
		return 0, io.EOF
	}
	n = copy(p, e.unsent)
	e.unsent = e.unsent[n:]
	return n, nil
}

// collect waits for events or the next beat.
func (e *eventStream) collect() {
	if e.server.open.Err() != nil {
		e.end = errDrained
		return
	}
	events, err := e.listener.Next(context.Background())
	for _, event := range events {
		e.add(event)
	}
	if e.end = err; err != nil || len(e.unsent) > 0 {
		return
	}
	gone, stop := e.watch()
	defer stop()
	select {
	case <-e.listener.Wake():
	case <-e.server.open.Done():
	case <-gone:
		e.end = errLeft
	case <-e.beat.C:
		if e.unsent = []byte(beat); !e.mayRead() {
			e.unsent, e.end = nil, errNoAccess
		}
	}
}

// watch looks whether the client leaves. Nothing is written meanwhile.
func (e *eventStream) watch() (gone <-chan struct{}, stop func()) {
	left := make(chan struct{})
	var once sync.Once
	_, stop, err := e.server.watcher.Watch(e.conn, func() { once.Do(func() { close(left) }) })
	if err != nil { // no socket to look at: a write will tell
		return nil, func() {}
	}
	return left, stop
}

// add adds an event in the form of an event stream. Of events of one id only the last says it, so that nothing is missing after it.
func (e *eventStream) add(event allocator.Event) {
	b := e.unsent
	switch {
	case event.Kind == allocator.EventReady || event.Kind == allocator.EventReset:
		b = append(b, "id: "+event.ID+"\nevent: "+string(event.Kind)+"\ndata: {}\n\n"...)
	case e.caller.InScope(e.pool, event.Service):
		if !event.Tied {
			b = append(b, "id: "+event.ID+"\n"...)
		}
		b = append(b, "event: "+string(event.Kind)+"\ndata: "...)
		b = append(appendEvent(b, e.pool, event), "\n\n"...)
	}
	e.unsent = b
}

// mayRead looks whether the token of the caller still counts, and what it may read.
func (e *eventStream) mayRead() bool {
	auth := e.server.auth
	if auth == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(e.server.open, beatInterval)
	defer cancel()
	caller, err := auth.Authenticate(ctx, e.authorization)
	if err != nil || !reading.allows(caller.Role) {
		return false
	}
	e.caller = caller
	if e.service != "" {
		return caller.InScope(e.pool, e.service)
	}
	return caller.ReachesPool(e.pool)
}

// Close is called when the answer is over, however it ended.
func (e *eventStream) Close() error {
	e.closed.Do(func() {
		e.beat.Stop()
		e.listener.Close()
		e.server.streams.leave()
		e.server.streams.count(e.end)
	})
	return nil
}

// streams counts the streams of a server.
type streams struct {
	most  int64
	open  atomic.Int64
	ended *prometheus.CounterVec
}

// defaultStreams is how many streams a server has at most, unless Options say so.
const defaultStreams = 256

func newStreams(most int) *streams {
	if most == 0 {
		most = defaultStreams
	}
	s := &streams{most: int64(most), ended: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "portmaster_streams_ended_total",
		Help: "How often a stream of events ended, by the reason: left (the client), slow (the client), drained, access " +
			"(taken away), error.",
	}, []string{"reason"})}
	return s
}

// enter counts a stream that begins, unless there are too many.
func (s *streams) enter() bool {
	if s.open.Add(1) > s.most {
		s.open.Add(-1)
		return false
	}
	return true
}

func (s *streams) leave() { s.open.Add(-1) }

// count counts why a stream ended. Without a cause, a write failed.
func (s *streams) count(cause error) {
	reason := "error"
	switch {
	case cause == nil || errors.Is(cause, errLeft):
		reason = "left"
	case errors.Is(cause, allocator.ErrSlow):
		reason = "slow"
	case errors.Is(cause, errDrained):
		reason = "drained"
	case errors.Is(cause, errNoAccess):
		reason = "access"
	}
	s.ended.WithLabelValues(reason).Inc()
}

func (s *streams) metrics() []prometheus.Collector {
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "portmaster_streams", Help: "Open streams of events."},
		func() float64 { return float64(s.open.Load()) })
	return []prometheus.Collector{open, s.ended}
}
