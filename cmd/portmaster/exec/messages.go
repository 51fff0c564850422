package exec

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"portmaster/client"
)

// messages is what exec says while it runs, on stderr, since stdout is the command's. Goroutines may share it.
type messages struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool      // it can overwrite a line
	open     bool      // there is a line of progress
	said     time.Time // the last time that seldom was heard
}

func newMessages() *messages {
	info, err := os.Stderr.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return &messages{out: os.Stderr, terminal: terminal}
}

// line says one line.
func (m *messages) line(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overwrite()
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(m.out, "portmaster:", strings.Join(strings.Fields(text), " "))
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

// progress shows for how long a call for a port has waited, if stderr is a terminal.
func (m *messages) progress(service string, p client.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.terminal {
		return
	}
	m.overwrite()
	fmt.Fprintf(m.out, "portmaster: waiting for a port of %s for %s", service, p.Waited.Round(time.Second))
	if p.Waiting > 1 {
		fmt.Fprintf(m.out, ", with %d calls in line", p.Waiting)
	}
	m.open = true
}

// clear removes the progress.
func (m *messages) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overwrite()
}

func (m *messages) overwrite() {
	if m.open {
		fmt.Fprint(m.out, "\r\x1b[K")
		m.open = false
	}
}
