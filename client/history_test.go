package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portmaster/client"
	"portmaster/handlers/servertest"
)

// historyOf returns what a history has, the latest first, as "KIND ID NAME".
func historyOf(t *testing.T, c *client.Client, service string, f client.HistoryFilter) (entries []string) {
	t.Helper()
	for e, err := range c.History(t.Context(), service, f) {
		must(t, err)
		entries = append(entries, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.ID, e.Name)))
	}
	return entries
}

// claimAndRelease has each of n names hold a port for a moment.
func claimAndRelease(t *testing.T, c *client.Client, service, prefix string, n int) {
	t.Helper()
	for i := range n {
		a, err := c.Claim(t.Context(), service, client.Request{Name: fmt.Sprint(prefix, i)}, client.Wait{})
		must(t, err)
		must(t, c.Release(t.Context(), a))
	}
}

// A history goes from page to page, and each filter says what it is for.
func TestHistory(t *testing.T) {
	t.Parallel()
	c := ownServer(t, client.Options{})
	define(t, c, "ci", 20000, 20009)
	claimAndRelease(t, c, "ci", "n", 600)
	all := historyOf(t, c, "ci", client.HistoryFilter{})
	if len(all) != 1201 || !strings.HasPrefix(all[1200], "defined") || !strings.HasPrefix(all[0], "released") || !strings.HasSuffix(all[0], " n599") {
		t.Errorf("%d entries, from %q to %q", len(all), all[0], all[len(all)-1])
	}
	kept, err := c.Claim(t.Context(), "ci", client.Request{Name: "kept", Count: 2, Lease: time.Hour}, client.Wait{})
	must(t, err)
	time.Sleep(10 * time.Millisecond) // the clock of the store inside this process moves within a script
	for what, test := range map[string]struct {
		filter client.HistoryFilter
		want   int
	}{
		"a port of the block": {client.HistoryFilter{Port: kept.Port + 1, Name: "kept"}, 1},
		"a name":              {client.HistoryFilter{Name: "n7"}, 2},
		"an owner":            {client.HistoryFilter{Owner: "nobody"}, 0},
		"since":               {client.HistoryFilter{Since: kept.Created}, 1},
		"until":               {client.HistoryFilter{Until: time.Now().Add(-time.Hour)}, 0},
		"at":                  {client.HistoryFilter{Name: "kept", At: time.Now()}, 1},
		"before":              {client.HistoryFilter{Name: "kept", At: kept.Created.Add(-time.Millisecond)}, 0},
	} {
		if got := historyOf(t, c, "ci", test.filter); len(got) != test.want {
			t.Errorf("%s: %q, want %d", what, got, test.want)
		}
	}
	for e, err := range c.History(t.Context(), "ci", client.HistoryFilter{}) {
		must(t, err)
		if e.Kind != client.EventAllocated || e.Service != "ci" || e.Name != "kept" || e.Port != kept.Port || e.Count != 2 || e.Fence != kept.Fence ||
			!e.Until.Equal(kept.Expires) || !e.Expired.IsZero() || e.Time.Sub(kept.Created).Abs() > time.Second {
			t.Errorf("%+v is not of %+v", e, kept)
		}
		break
	}
	for _, err := range c.History(t.Context(), "none", client.HistoryFilter{}) {
		if !errors.Is(err, client.ErrServiceNotFound) {
			t.Error(err)
		}
	}
}

// breaker passes connections on to a server, and cuts each after some bytes of the answer.
func breaker(t *testing.T, server string, bytes func() int64) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			front, err := listener.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
			if err != nil {
				front.Close()
				continue
			}
			go io.Copy(back, front)
			go func() {
				io.CopyN(front, back, bytes())
				front.Close()
				back.Close()
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// Streams that break again and again, in the middle of events too, have every event once, in the order of each history.
func TestEventsOverBreaks(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t)
	c := newClient(t, server, client.Options{})
	services := []string{"ci", "web"}
	for i, service := range services {
		define(t, c, service, 20000+10*i, 20009+10*i)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var connected, following, working sync.WaitGroup
	got := make([]map[string][]string, 2) // of a stream: by the service
	for i, of := range []string{"ci", ""} {
		got[i] = map[string][]string{}
		breaks, left := 0, len(services)
		if of != "" {
			left = 1
		}
		broken := newClient(t, breaker(t, server, func() int64 { return 600 + rand.Int64N(6000) }), client.Options{
			OnRetry: func(error, time.Duration) { breaks++ },
		})
		connected.Add(1)
		following.Go(func() {
			for e, err := range broken.Events(ctx, of, "") {
				switch {
				case err != nil:
					t.Errorf("the stream of %q: %v", of, err)
				case e.Kind == client.EventReady && breaks == 0:
					connected.Done()
				case e.Kind != client.EventReady:
					got[i][e.Service] = append(got[i][e.Service], fmt.Sprint(e.Kind, " ", e.Name))
				}
				if e.Kind == client.EventReleased && e.Name == "last0" {
					left--
				}
				if left == 0 {
					break
				}
			}
			if breaks < 5 {
				t.Errorf("the stream of %q broke %d times", of, breaks)
			}
		})
	}
	connected.Wait()
	for _, service := range services {
		working.Go(func() { claimAndRelease(t, c, service, "n", 100); claimAndRelease(t, c, service, "last", 1) })
	}
	working.Wait()
	following.Wait()
	for i, want := range []map[string]bool{{"ci": true}, {"ci": true, "web": true}} {
		for _, service := range services {
			var history []string
			for e, err := range c.History(t.Context(), service, client.HistoryFilter{}) {
				must(t, err)
				if want[service] && e.Kind != client.EventDefined { // it was defined before
					history = append(history, fmt.Sprint(e.Kind, " ", e.Name))
				}
			}
			slices.Reverse(history)
			if !slices.Equal(got[i][service], history) {
				t.Errorf("stream %d has %d events of %s, want %d", i, len(got[i][service]), service, len(history))
			}
		}
	}
}
