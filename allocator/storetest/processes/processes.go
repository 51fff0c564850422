// Package processes starts processes that end with the test that started them, on addresses that no other test of the process uses. It
// imports the standard library only, so that tests in modules of their own can use it.
package processes

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Process is a command that Run has started.
type Process struct {
	Cmd    *exec.Cmd
	Log    *bytes.Buffer   // what it has written, to be read when it has ended
	Exited <-chan struct{} // closed when it has ended
}

// Run starts a command, which ends with the test. If the test fails, its log shows what the command wrote.
func Run(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, Log: &bytes.Buffer{}}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	var err error
	if p.Exited, err = Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.End(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd, p.Log)
		}
	})
	return p
}

// End sends a signal to the process and waits until it has ended.
func (p *Process) End(signal os.Signal) {
	_ = p.Cmd.Process.Signal(signal)
	<-p.Exited
}

// Start starts a command. The kernel ends it with the test process, however that ends. exited is closed when it has ended.
func Start(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	endWithThread(cmd.SysProcAttr)
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the signal comes when the thread that started the process ends
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its state says how it ended
		}
		close(ended)
	}()
	return ended, <-started
}

// The ports that FreeAddr returns: the first, how many there are, where this process begins, and how many it has returned.
const firstFree, countFree = 10_000, 20_000

var (
	freeFrom = rand.IntN(countFree)
	returned atomic.Int64
)

// FreeAddr returns an address on loopback where nobody listens. Its port is below those that the kernel gives to outgoing
// connections, so that it is still free when a process that was ended comes back to it, and no other test of this process gets it.
func FreeAddr() (addr string, err error) {
	for range 100 {
		port := firstFree + (freeFrom+int(returned.Add(1)))%countFree
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", err
}

// Eventually waits until ok is true, and fails the test where that takes longer than the bound.
func Eventually(t testing.TB, bound time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", bound, what)
		}
	}
}
