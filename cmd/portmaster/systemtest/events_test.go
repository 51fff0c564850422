//go:build !faults

package systemtest

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// TestEventsOutliveServersAndRedis follows a service while its server is stopped, which ends the stream at once, and while Redis is
// restarted, which does not. In the end the client has heard what the history has, each event once.
func TestEventsOutliveServersAndRedis(t *testing.T) {
	store, stopRedis, startRedis := storetest.Private(t)
	r := startReplicasOn(t, store, 2, 27900, 4, "PORTMASTER_SHUTDOWN_DELAY=100ms", "PORTMASTER_REDIS_TIMEOUT=2s")
	f := r.followEvents()
	claims := 0
	claim := func(server, n int) {
		for range n {
			claims++
			name := fmt.Sprint("job-", claims)
			eventually(t, name+" has had a port", func() bool {
				got := r.send(t.Context(), server, request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q}`, name)})
				return got.status == 201 && r.send(t.Context(), server, request{method: "DELETE", path: "/ports/" + name}).status == 204
			})
		}
	}
	claim(0, 20)
	f.await(40)
	r.servers[0].signal(syscall.SIGTERM)
	claim(1, 20)
	if code := r.servers[0].wait(); code != 0 {
		t.Errorf("the server ends with %d: a stream holds it up", code)
	}
	f.await(80)

	stopRedis()
	time.Sleep(time.Second)
	startRedis()
	claim(1, 20)
	var history []struct{ ID, Event, Name string }
	r.get(1, "/history", &history)
	slices.Reverse(history)
	f.await(len(history) - 1)
	var want []string
	for _, e := range history[1:] { // without the definition
		want = append(want, fmt.Sprint(e.ID, " ", e.Event))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.heard, want) {
		t.Errorf("heard %v, want %v", f.heard, want)
	}
	if f.streams != 2 || f.resets != 0 {
		t.Errorf("it took %d streams, with %d resets", f.streams, f.resets)
	}
}

// followed is what a client hears that follows the service at one server after the other.
type followed struct {
	t  *testing.T
	mu sync.Mutex

	heard           []string // "id kind"
	streams, resets int
}

// followEvents follows the service until the test ends.
func (r *replicas) followEvents() *followed {
	f := &followed{t: r.t}
	last, begun := "", make(chan struct{})
	go func() {
		for server := 0; r.t.Context().Err() == nil; server = (server + 1) % len(r.servers) {
			request, _ := http.NewRequestWithContext(r.t.Context(), "GET", r.servers[server].url+r.route()+"/events", nil)
			if last != "" {
				request.Header.Set("Last-Event-ID", last)
			}
			response, err := r.client.Do(request)
			if err != nil || response.StatusCode != http.StatusOK {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			f.mu.Lock()
			f.streams++
			f.mu.Unlock()
			id := ""
			for lines := bufio.NewScanner(response.Body); lines.Scan(); {
				field, value, _ := strings.Cut(lines.Text(), ": ")
				switch field {
				case "id":
					id = value
				case "event":
					f.mu.Lock()
					switch value {
					case "ready":
						if f.streams == 1 {
							close(begun)
						}
					case "reset":
						f.resets++
					default:
						f.heard = append(f.heard, id+" "+value)
					}
					f.mu.Unlock()
				case "data":
					last = id
				}
			}
			response.Body.Close()
		}
	}()
	<-begun
	return f
}

// await waits until so many events were heard.
func (f *followed) await(n int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprint(n, " events were heard"), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.heard) >= n
	})
}
