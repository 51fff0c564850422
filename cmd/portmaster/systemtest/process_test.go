// Package systemtest tests real processes from outside: servers, the Redis that they share, and a load balancer. Tests that let
// these fail under load have the build tag faults, and run by make test-faults; the others run by make test.
package systemtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portmaster/allocator/storetest/processes"
)

// patience bounds every wait for something that is not meant to take long.
const patience = 2 * time.Minute

// command says how to run a process.
type command struct {
	name      string   // in the test's log
	namespace string   // of the network, made by the test; empty: the machine's own
	args      []string // the program and its arguments
	env       []string // all of its environment
}

// process is a program that runs, and may be run again. It ends with the test, however that ends.
type process struct {
	t       testing.TB
	command command
	log     string // the file that has what it wrote, over all its runs
	cmd     *exec.Cmd
	exited  <-chan struct{} // closed when this run has ended
}

// startProcess starts a program. Where the test fails, the end of what it wrote is in the test's log.
func startProcess(t testing.TB, c command) *process {
	t.Helper()
	p := &process{t: t, command: c, log: filepath.Join(t.TempDir(), c.name+".log")}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the last of %s's log:\n%s", c.name, p.tail())
		}
	})
	p.start()
	return p
}

// start runs the program, again after it ended.
func (p *process) start() {
	p.t.Helper()
	args := p.command.args
	if p.command.namespace != "" {
		args = append([]string{"ip", "netns", "exec", p.command.namespace}, args...) // which becomes the program
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = filepath.Dir(p.log), p.command.env, log, log
	exited, err := processes.Start(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.exited = cmd, exited
}

// kill ends the program at once, with SIGKILL, running or not.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// wait waits for the end of the program, and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end", p.command.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.command.name, err)
	}
}

// running is false once the program has ended.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// await waits until the process has got somewhere, and fails the test at once where it ended instead.
func (p *process) await(what string, ok func() bool) {
	p.t.Helper()
	eventually(p.t, p.command.name+": "+what, func() bool {
		p.t.Helper()
		if !p.running() {
			p.t.Fatalf("%s ended by itself (%v) before: %s", p.command.name, p.cmd.ProcessState, what)
		}
		return ok()
	})
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	processes.Eventually(t, patience, what, ok)
}

// freeAddr returns an address on loopback where nobody listens.
func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := processes.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// text is what the program wrote so far, over all its runs.
func (p *process) text() string {
	text, _ := os.ReadFile(p.log) // where it cannot be read there is nothing to show
	return string(text)
}

// tail returns the last lines of what the program wrote.
func (p *process) tail() string {
	lines := strings.SplitAfter(p.text(), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "")
}
