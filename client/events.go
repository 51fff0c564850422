package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	// maxSilence is how long a stream may be silent. The server sends a beat every 5 s.
	maxSilence = 15 * time.Second
	maxLine    = 64 << 10 // bytes of a line of a stream; an event has less than 1 KB
)

// Events tells what happens to a service and its ports, or, if service is "", to those of the pool that the caller may use: as it
// happens, until ctx ends. after is the ID of the event after which to begin; "" is now. An error is the last item: the cause of ctx, or
// an *Error of a call that it does not help to repeat, such as ErrServiceNotFound, ErrForbidden or ErrUnauthenticated.
//
// A stream that breaks off, or is silent for 15 s, is connected again and goes on after the last event. The pauses are those of other
// calls. If the first connection does not succeed, Events gives up as another call does; later, it goes on until ctx ends. Options.OnRetry
// is told of each failure.
//
// The first event, and the first after each further connection, is EventReady. What is read after it, and updated by what follows, is
// never stale. EventReset tells that some events could not be had, and the state should be read anew.
func (c *Client) Events(ctx context.Context, service, after string) iter.Seq2[Event, error] {
	parts := []string{"services", service, "events"}
	if service == "" {
		parts = []string{"events"}
	}
	path, err := c.path(parts...)
	if err == nil && strings.ContainsFunc(after, func(r rune) bool { return r <= ' ' || r > '~' }) { // no header has that
		err = &Error{Code: ErrInvalid.Code, Detail: "the request was not sent", Fields: []FieldError{{"after", "is no ID of an event"}}}
	}
	return func(yield func(Event, error) bool) {
		if err != nil {
			yield(Event{}, err)
			return
		}
		s := stream{client: c, path: path, last: after, yield: yield}
		if err := s.run(ctx); err != nil {
			yield(Event{}, err)
		}
	}
}

// stream is a call of Events.
type stream struct {
	client *Client
	path   string
	yield  func(Event, error) bool

	last  string // ID of the last event
	ready bool   // it was connected once
}

// errEnough is the end of a stream whose receiver wants no more.
var errEnough = errors.New("enough")

// run connects the stream until it ends for good. It returns nil if its receiver wants no more.
func (s *stream) run(ctx context.Context) error {
	options := &s.client.options
	over := time.Now().Add(max(options.RetryFor, 0))
	if deadline, ok := ctx.Deadline(); ok {
		over = deadline
	}
	for pauses := 0; ; pauses++ {
		began := time.Now()
		failed := s.connect(ctx)
		if errors.Is(failed, errEnough) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if again, _ := failed.repeatable(); !again {
			return failed
		}
		if time.Since(began) > maxPause { // it was no failure from the beginning
			pauses = 0
		}
		pause := failed.RetryAfter + rand.N(min(firstPause<<min(pauses, 8), maxPause))
		if !s.ready && time.Until(over) < pause {
			return failed
		}
		if options.OnRetry != nil {
			options.OnRetry(failed, pause)
		}
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// connect connects the stream once, and returns why it ended.
func (s *stream) connect(ctx context.Context) *Error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := &Error{Code: ErrUnavailable.Code, Detail: "the server is silent"}
	silence := time.AfterFunc(s.client.options.Timeout, func() { cancel(silent) })
	defer silence.Stop()
	failed := s.exchange(ctx, silence)
	if context.Cause(ctx) == silent {
		return silent
	}
	return failed
}

// exchange sends the request, and reads the answer until it ends, or silence ends ctx.
func (s *stream) exchange(ctx context.Context, silence *time.Timer) *Error {
	get := call{method: "GET"}
	if s.last != "" {
		get.header = [2]string{"Last-Event-ID", s.last}
	}
	request, err := newRequest(ctx, get, s.client.base+s.path)
	if err != nil {
		return &Error{Code: ErrInvalid.Code, Detail: "the request was not sent", cause: err}
	}
	request.Header.Set("Accept", "text/event-stream")
	if err := s.client.authorize(request); err != nil {
		return err
	}
	response, err := s.client.http.Do(request)
	if err != nil {
		return unanswered(err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		return problemOf(response.StatusCode, response.Header, body)
	}
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		return &Error{Status: response.StatusCode, Detail: "the answer is not Portmaster's", RequestID: response.Header.Get("X-Request-ID")}
	}
	return s.read(response, silence)
}

// read reads events until the stream ends. silence ends it; it stands still while the receiver is busy with an event.
func (s *stream) read(response *http.Response, silence *time.Timer) *Error {
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxLine)
	var kind, id string
	var data []byte
	for silence.Reset(s.client.maxSilence); lines.Scan(); silence.Reset(s.client.maxSilence) {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "" && kind+id != "":
			silence.Stop()
			if failed := s.deliver(kind, id, data); failed != nil {
				return failed
			}
			kind, id, data = "", "", nil
		case field == "event":
			kind = value
		case field == "id":
			id = value
		case field == "data":
			data = append(data, value...)
		}
	}
	if err := lines.Err(); err != nil {
		return &Error{Code: ErrUnavailable.Code, Detail: "the stream broke off", cause: err}
	}
	return &Error{Code: ErrUnavailable.Code, Detail: "the server ended the stream"}
}

// deliver hands an event over. The ID of EventReady counts only if there is none yet: events before it may still follow.
func (s *stream) deliver(kind, id string, data []byte) *Error {
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return &Error{Status: http.StatusOK, Detail: "the answer is not Portmaster's", cause: err}
	}
	e.Kind = EventKind(kind)
	if e.Kind == EventReady {
		s.ready = true
	}
	if id != "" && (e.Kind != EventReady || s.last == "") {
		s.last = id
	}
	e.ID = s.last
	if !s.yield(e, nil) {
		return &Error{cause: errEnough}
	}
	return nil
}
