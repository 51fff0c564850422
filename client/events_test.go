package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portmaster/client"
)

// feed is a server of one stream. Each connection gets what connected returns for it, counted from 0, and is then ended, unless hold.
type feed struct {
	mu     sync.Mutex
	after  []string // the Last-Event-ID of each connection
	paths  []string
	answer func(w http.ResponseWriter, n int) (hold bool)
}

func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := len(f.after)
	f.after, f.paths = append(f.after, r.Header.Get("Last-Event-ID")), append(f.paths, r.URL.Path)
	f.mu.Unlock()
	if f.answer(w, n) {
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func (f *feed) connections() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.after)
}

// send sends events, each as "KIND ID NAME".
func send(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, event := range events {
		words := strings.Fields(event + " ")
		data := "{}"
		if len(words) > 2 {
			data = fmt.Sprintf(`{"id":%q,"event":%q,"service":"ci","port":20000,"name":%q}`, words[1], words[0], words[2])
		}
		fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", words[1], words[0], data)
	}
	http.NewResponseController(w).Flush()
}

// told reads events until there are enough, as "KIND ID NAME", and returns the last error, if it is that.
func told(ctx context.Context, c *client.Client, service, after string, enough int) (events []string, last error) {
	for e, err := range c.Events(ctx, service, after) {
		if err != nil {
			return events, err
		}
		events = append(events, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.ID, e.Name)))
		if len(events) == enough {
			break
		}
	}
	return events, nil
}

// A stream goes on after the last event, however it ended: in the middle of an event, before the first, or for good on the server's side.
func TestEventsGoOn(t *testing.T) {
	t.Parallel()
	f := &feed{answer: func(w http.ResponseWriter, n int) bool {
		switch n {
		case 0:
			send(w, "ready 5-0")
		case 1:
			send(w, "ready 6-0", "allocated 6-0 a")
			io.WriteString(w, "id: 7-0\nevent: released\ndata: {\"na") // half of it
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case 2:
			w.Header().Set("Retry-After", "1")
			answer(w, 503, "application/problem+json", `{"code":"UNAVAILABLE","detail":"too many streams"}`)
		case 3:
			send(w, "ready 7-0", "released 7-0 a", "reset 9-0")
		default:
			send(w, "ready 9-0", "surprise 10-0 b")
			return true
		}
		return false
	}}
	var failures []string
	var pauses []time.Duration
	c, _ := stub(t, client.Options{OnRetry: func(err error, pause time.Duration) {
		failures, pauses = append(failures, err.Error()), append(pauses, pause)
	}}, f.ServeHTTP)
	events, err := told(t.Context(), c, "ci", "", 8)
	must(t, err)
	want := []string{"ready 5-0", "ready 5-0", "allocated 6-0 a", "ready 6-0", "released 7-0 a", "reset 9-0", "ready 9-0", "surprise 10-0 b"}
	if !slices.Equal(events, want) {
		t.Errorf("got %q, want %q", events, want)
	}
	if after := f.connections(); !slices.Equal(after, []string{"", "5-0", "6-0", "6-0", "9-0"}) {
		t.Errorf("connected after %q", after)
	}
	if len(failures) != 4 || !strings.Contains(failures[0], "ended the stream") || !strings.Contains(failures[1], "broke off") || !strings.Contains(failures[2], "too many") {
		t.Errorf("told of %q", failures)
	}
	if len(pauses) != 4 || pauses[2] < time.Second {
		t.Errorf("pauses %v", pauses)
	}
	if f.paths[0] != "/v1/services/ci/events" {
		t.Error(f.paths)
	}
}

// The stream of a pool has a route of its own, and begins after the given event.
func TestEventsOfPool(t *testing.T) {
	t.Parallel()
	f := &feed{answer: func(w http.ResponseWriter, n int) bool { send(w, "ready 9-0", "allocated 10-0 b"); return true }}
	c, _ := stub(t, client.Options{Pool: "host-1"}, f.ServeHTTP)
	events, err := told(t.Context(), c, "", "7-1", 2)
	must(t, err)
	if !slices.Equal(events, []string{"ready 7-1", "allocated 10-0 b"}) || f.paths[0] != "/v1/pools/host-1/events" || f.after[0] != "7-1" {
		t.Errorf("%q, %s after %q", events, f.paths, f.after)
	}
}

// What repeating does not help ends a stream, on the first connection and later.
func TestEventsEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   error
	}{
		"403": {func(w http.ResponseWriter) {
			answer(w, 403, "application/problem+json", `{"code":"FORBIDDEN","detail":"no"}`)
		}, client.ErrForbidden},
		"404": {func(w http.ResponseWriter) {
			answer(w, 404, "application/problem+json", `{"code":"SERVICE_NOT_FOUND","detail":"no"}`)
		}, client.ErrServiceNotFound},
		"a login page": {func(w http.ResponseWriter) { answer(w, 200, "text/html", "hello") }, nil},
		"no JSON": {func(w http.ResponseWriter) {
			send(w, "ready 1-0")
			io.WriteString(w, "id: 2-0\nevent: allocated\ndata: x\n\n")
		}, nil},
	} {
		for connections := range 2 {
			f := &feed{answer: func(w http.ResponseWriter, n int) bool {
				if n < connections {
					send(w, "ready 1-0")
				} else {
					test.answer(w)
				}
				return false
			}}
			c, requests := stub(t, client.Options{}, f.ServeHTTP)
			_, err := told(t.Context(), c, "ci", "", -1)
			if failed := new(client.Error); !errors.As(err, &failed) || test.want != nil && !errors.Is(err, test.want) || int(requests.Load()) != connections+1 {
				t.Errorf("%s: %v, after %d requests", name, err, requests.Load())
			}
		}
	}
	if _, err := told(t.Context(), newClient(t, "http://127.0.0.1:1", client.Options{}), "ci", "1\n2", -1); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	if _, err := told(t.Context(), newClient(t, "http://127.0.0.1:1", client.Options{}), "a/b", "", -1); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
}

// Who cannot connect at all gives up as other calls do. A stream that was connected does not.
func TestEventsGiveUp(t *testing.T) {
	t.Parallel()
	options := client.Options{RetryFor: 200 * time.Millisecond}
	if _, err := told(t.Context(), newClient(t, "http://127.0.0.1:1", options), "ci", "", -1); !errors.Is(err, client.ErrUnavailable) {
		t.Error(err)
	}
	f := &feed{answer: func(w http.ResponseWriter, n int) bool {
		if n > 0 && n < 6 {
			answer(w, 502, "text/html", "bad gateway")
			return false
		}
		send(w, fmt.Sprintf("ready %d-0", n))
		return false
	}}
	c, _ := stub(t, client.Options{RetryFor: -1}, f.ServeHTTP)
	events, err := told(t.Context(), c, "ci", "", 2)
	if must(t, err); len(events) != 2 || len(f.connections()) != 7 {
		t.Errorf("%q after %d connections", events, len(f.connections()))
	}
}

// The end of the context ends a stream at once, with its cause: while it is silent, and while it pauses.
func TestEventsEndWithContext(t *testing.T) {
	t.Parallel()
	reason := errors.New("that will do")
	for _, hold := range []bool{true, false} {
		ctx, end := context.WithCancelCause(t.Context())
		f := &feed{answer: func(w http.ResponseWriter, n int) bool {
			if !hold && n > 0 {
				w.Header().Set("Retry-After", "60")
				answer(w, 503, "text/plain", "")
				return false
			}
			send(w, "ready 1-0")
			return hold
		}}
		pausing := make(chan struct{}, 9)
		c, _ := stub(t, client.Options{OnRetry: func(_ error, pause time.Duration) {
			if pause >= time.Minute {
				pausing <- struct{}{}
			}
		}}, f.ServeHTTP)
		if hold {
			time.AfterFunc(50*time.Millisecond, func() { end(reason) })
		} else {
			go func() { <-pausing; end(reason) }()
		}
		began := time.Now()
		if _, err := told(ctx, c, "ci", "", -1); err != reason || time.Since(began) > 10*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	}
}

// A server that says nothing any more is left. One that sends beats is not, nor one whose events are worked on for long.
func TestSilentEvents(t *testing.T) {
	t.Parallel()
	const maxSilence = 300 * time.Millisecond
	f := &feed{answer: func(w http.ResponseWriter, n int) bool {
		send(w, fmt.Sprintf("ready %d-0", n+1))
		return true
	}}
	var failures []error
	c, _ := stub(t, client.Options{OnRetry: func(err error, _ time.Duration) { failures = append(failures, err) }}, f.ServeHTTP)
	client.SetMaxSilence(c, maxSilence)
	began := time.Now()
	events, err := told(t.Context(), c, "ci", "", 2)
	if err != nil || len(failures) != 1 || !errors.Is(failures[0], client.ErrUnavailable) || time.Since(began) < maxSilence {
		t.Errorf("after %s: %q, %v; told of %v", time.Since(began), events, err, failures)
	}

	c, _ = stub(t, client.Options{OnRetry: func(err error, _ time.Duration) { t.Error("beats, and yet", err) }}, func(w http.ResponseWriter, r *http.Request) {
		send(w, "ready 1-0", "allocated 2-0 a")
		for range 12 {
			time.Sleep(maxSilence / 6)
			io.WriteString(w, ": beat\n")
			http.NewResponseController(w).Flush()
		}
		send(w, "allocated 3-0 b")
		<-r.Context().Done()
	})
	client.SetMaxSilence(c, maxSilence)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	for e, err := range c.Events(ctx, "ci", "") {
		must(t, err)
		switch e.Name {
		case "a":
			time.Sleep(2 * maxSilence)
		case "b":
			return
		}
	}
	t.Error("the stream ended")
}
