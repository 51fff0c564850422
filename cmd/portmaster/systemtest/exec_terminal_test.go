//go:build !faults

package systemtest

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// inTerminal is a program in a terminal of its own, which it controls.
type inTerminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys interface{ Write([]byte) (int, error) }
	done chan struct{} // closed when nobody has the terminal any more

	mu   sync.Mutex
	text strings.Builder
}

// startInTerminal runs a command in a terminal. It ends with the test.
func startInTerminal(t *testing.T, c command) *inTerminal {
	t.Helper()
	p := &inTerminal{t: t, cmd: exec.Command(c.args[0], c.args[1:]...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = c.env, t.TempDir()
	terminal, err := pty.Start(p.cmd)
	if err != nil {
		t.Fatal(err)
	}
	p.keys = terminal
	go func() {
		defer close(p.done)
		for b := make([]byte, 4096); ; {
			n, err := terminal.Read(b)
			p.mu.Lock()
			p.text.Write(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		terminal.Close() // which hangs up on those that are left
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", p.shows())
		}
	})
	return p
}

func (p *inTerminal) shows() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *inTerminal) press(key string) {
	p.t.Helper()
	if _, err := p.keys.Write([]byte(key)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *inTerminal) awaits(text string) {
	p.t.Helper()
	eventually(p.t, "the terminal shows "+text, func() bool { return strings.Contains(p.shows(), text) })
}

// ends sees that the program ends with an exit code, and that the terminal has shown each text once.
func (p *inTerminal) ends(code int, once ...string) {
	p.t.Helper()
	over := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer over.Stop()
	p.cmd.Wait()
	<-p.done
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d", got, code)
	}
	for _, text := range once {
		if n := strings.Count(p.shows(), text); n != 1 {
			p.t.Errorf("the terminal shows %q %d times", text, n)
		}
	}
}

const (
	ctrlC         = "\x03"
	ctrlBackslash = "\x1c"
)

// A key reaches the command and what it started once, and a signal to exec does so, too.
func TestExecInATerminal(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 4)
	for got, send := range map[string]func(p *inTerminal){
		"interrupt":  func(p *inTerminal) { p.press(ctrlC) },
		"quit":       func(p *inTerminal) { p.press(ctrlBackslash) },
		"terminated": func(p *inTerminal) { p.cmd.Process.Signal(syscall.SIGTERM) },
		"user-defined-signal-1": func(p *inTerminal) {
			p.cmd.Process.Signal(syscall.SIGUSR1)
			p.awaits("grandchild got user-defined-signal-1")
			p.press(ctrlC)
		},
	} {
		t.Run(got, func(t *testing.T) {
			t.Parallel()
			p := startInTerminal(t, s.execution("exec", "report", "ci", os.Args[0]))
			p.awaits("command started")
			p.awaits("grandchild started")
			send(p)
			p.ends(3, "command got "+got, "grandchild got "+got)
		})
	}
}

// The shell or make that started exec, and what else is in a pipeline, is in the same process group. It gets the keys, but not the
// signals that were sent to exec.
func TestExecUnderAShellInATerminal(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	c := s.execution("exec", "report", "ci", os.Args[0])
	const script = `trap 'echo shell got INT' INT; trap 'echo shell got TERM' TERM; "$@"; echo exec ended with $?`
	c.args = append([]string{"sh", "-c", script, "sh"}, c.args...)
	p := startInTerminal(t, c)
	p.awaits("command started")
	p.awaits("grandchild started")
	holder := s.allocation()
	pid, err := strconv.Atoi(holder.Name[strings.LastIndex(holder.Name, ".")+1:])
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGTERM)
	p.awaits("grandchild got terminated")
	p.press(ctrlC)
	p.ends(0, "command got terminated", "grandchild got terminated", "command got interrupt", "grandchild got interrupt", "shell got INT",
		"exec ended with 3")
	if strings.Contains(p.shows(), "shell got TERM") {
		t.Error("the shell got a signal that was not for it")
	}
}

func TestExecShowsItsProgressInATerminal(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	holder := s.exec("holder", "--name", "holder", "ci", "sleep", "60")
	s.allocation()
	runs := startInTerminal(t, s.execution("exec", "", "ci", "echo", "ran"))
	leaves := startInTerminal(t, s.execution("exec", "", "ci", "echo", "ran"))
	runs.awaits("waiting for a port of ci for 2s; ")
	runs.awaits("; 2 in line")
	leaves.awaits("; 2 in line")
	leaves.press(ctrlC)
	leaves.ends(130)
	eventually(t, "one waits", func() bool { _, waiting := s.counts(); return waiting == 1 })
	holder.signal(syscall.SIGTERM)
	runs.ends(0, "\rran")
	s.allFree()
}
