package check

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A stream of events goes through HAProxy: it outlives the timeouts, since the server sends a beat, and events are not held back.
// The file gives the server 15 s; here that is 8 s, longer than a beat, and clients get 1 s.
func TestHAProxyStreams(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		text := read(t, filepath.Join(dir, "haproxy.cfg"))
		short := t.TempDir()
		write(t, filepath.Join(short, "haproxy.cfg"), strings.NewReplacer(
			"timeout server 15s", "timeout server 8s", "timeout client 60s", "timeout client 1s", "timeout http-request 10s", "timeout http-request 1s",
		).Replace(text))
		addr := freeAddr(t)
		startServer(t, addr)
		post(t, addr, "/v1/services", `{"name":"web","start":7000,"end":7009}`)
		events, err := follow(t.Context(), startHAProxy(t, short, addr, freeAddr(t), freeAddr(t)))
		if err != nil {
			return err
		}
		defer events.close()
		return errors.Join(events.awaitBeats(2), events.areNotHeldBack(t, addr)) // two beats are longer than any timeout
	},
		mutant{"haproxy.cfg", "timeout server 15s", "timeout server 4s", "the stream ended"},
	)
}

// HAProxy that is told to end does so once the servers do: they end their streams.
func TestHAProxyEndsWithStreams(t *testing.T) {
	patient := copied(t, deployments, "haproxy.cfg", "hard-stop-after 20s", "hard-stop-after 1h")
	addr := freeAddr(t)
	server := startServer(t, addr)
	balancer := freeAddr(t)
	haproxy := start(t, haproxyCommand(t, patient, balancer, []string{addr, freeAddr(t), freeAddr(t)}))
	awaitListener(t, balancer)
	events, err := follow(t.Context(), balancer)
	if err != nil {
		t.Fatal(err)
	}
	defer events.close()
	haproxy.cmd.Process.Signal(syscall.SIGUSR1)
	if err := events.awaitBeats(1); err != nil {
		t.Errorf("HAProxy ended a stream before its server did: %v", err)
	}
	server.cmd.Process.Signal(syscall.SIGTERM)
	if _, err := io.Copy(io.Discard, events.lines); err != nil {
		t.Errorf("the stream was cut off: %v", err)
	}
	<-haproxy.exited
	<-server.exited
}

// stream is the events of the default pool.
type stream struct {
	lines *bufio.Reader
	close func()
}

// follow begins to follow the events that an address has, and waits until it does.
func follow(ctx context.Context, addr string) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/v1/events", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	request.Close = true
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{bufio.NewReader(response.Body), func() { cancel(); response.Body.Close() }}
	for {
		switch line, err := s.next(); {
		case err != nil || response.StatusCode != http.StatusOK:
			s.close()
			return nil, fmt.Errorf("status %d, error %w", response.StatusCode, err)
		case line == "event: ready":
			return s, nil
		}
	}
}

// next returns the next line.
func (s *stream) next() (string, error) {
	line, err := s.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the stream ended: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

func (s *stream) awaitBeats(n int) error {
	for n > 0 {
		line, err := s.next()
		if err != nil {
			return err
		}
		if line == ": beat" {
			n--
		}
	}
	return nil
}

// areNotHeldBack claims five ports, each when the event of the one before it has arrived. If events came with the beats only, there
// would be as many beats.
func (s *stream) areNotHeldBack(t *testing.T, server string) error {
	beats := 0
	for i := range 5 {
		name := fmt.Sprint("job-", i)
		post(t, server, "/v1/services/web/ports", fmt.Sprintf(`{"name":%q}`, name))
		for arrived := false; !arrived; {
			line, err := s.next()
			if err != nil {
				return err
			}
			arrived = strings.HasPrefix(line, "data: ") && strings.Contains(line, `"`+name+`"`)
			if line == ": beat" {
				beats++
			}
		}
	}
	if beats > 2 {
		return fmt.Errorf("five events came with %d beats", beats)
	}
	return nil
}
