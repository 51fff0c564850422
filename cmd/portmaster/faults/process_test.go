//go:build faults

// Package faults lets real processes fail under load and checks that nothing that was acknowledged is lost: make test-faults.
package faults

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that is not meant to take long.
const patience = 30 * time.Second

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
	exited  chan struct{} // closed when this run has ended
}

// startProcess starts a program. Where the test fails, the end of what it wrote is in the test's log.
func startProcess(t testing.TB, c command) *process {
	t.Helper()
	p := &process{t: t, command: c, log: filepath.Join(t.TempDir(), c.name+".log")}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the last of %s's log:\n%s", c.name, tail(p.log))
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the kernel ends the process when the thread that started it ends
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its state says how it ended
		}
		close(exited)
	}()
	if err := <-started; err != nil {
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

// terminate asks the program to end, with SIGTERM, and returns its exit code.
func (p *process) terminate() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end", p.command.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

// pause stops the program where it is, with SIGSTOP: its connections stay open, and nothing answers.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
}

// resume lets a paused program go on.
func (p *process) resume() {
	p.t.Helper()
	p.signal(syscall.SIGCONT)
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
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// freeAddr returns an address on loopback where nobody listens. Its port is below those that the kernel gives to outgoing
// connections, so that it is still free when a process that was killed comes back to it.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free on loopback")
	return ""
}

// tail returns the last lines of a file.
func tail(path string) []byte {
	text, _ := os.ReadFile(path) // where it cannot be read there is nothing to show
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-40):], nil)
}
