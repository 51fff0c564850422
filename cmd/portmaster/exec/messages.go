package exec

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"portmaster/client"
	"portmaster/cmd/portmaster/cli"
)

// messages is what exec says while it runs, on stderr, since stdout is the command's. Goroutines may share it.
type messages struct {
	waiting *cli.Progress
	mu      sync.Mutex
	said    time.Time // the last time that seldom was heard
}

// line says one line.
func (m *messages) line(format string, args ...any) {
	m.waiting.Done()
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(os.Stderr, "portmaster:", strings.Join(strings.Fields(text), " "))
}

// seldom says a line, but not more than one in half a minute.
func (m *messages) seldom(format string, args ...any) {
	m.mu.Lock()
	late := time.Since(m.said) > 30*time.Second
	if late {
		m.said = time.Now()
	}
	m.mu.Unlock()
	if late {
		m.line(format, args...)
	}
}

// wait is to wait for a port of a service, and to show for how long, if stderr is a terminal.
func (m *messages) wait(service string, longest time.Duration) client.Wait {
	if m.waiting == nil { // the client would ask the server how many wait
		return client.Wait{Longest: longest}
	}
	return client.Wait{Longest: longest, Progress: func(p client.Progress) {
		if p.Waiting < 0 {
			m.waiting.Show("waiting for a port of %s for %s; the server does not answer", service, p.Waited.Round(time.Second))
			return
		}
		m.waiting.Show("waiting for a port of %s for %s; %d in line", service, p.Waited.Round(time.Second), p.Waiting)
	}}
}
