package storetest

import (
	"math/rand/v2"
	"net"
	"net/url"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

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

// NothingRefused sees that Redis refused no user anything.
func (s Store) NothingRefused(t testing.TB) {
	t.Helper()
	refusals, err := s.Admin.ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refusals {
		t.Errorf("Redis refused to %s: %s %s (%s)", r.Username, r.Reason, r.Object, r.Context)
	}
}

// NoPasswordIn sees that a text does not show the password, not even as it stands in a URL.
func NoPasswordIn(t testing.TB, text string) {
	t.Helper()
	for _, password := range []string{Password, url.QueryEscape(Password), url.PathEscape(Password)} {
		if strings.Contains(text, password) {
			t.Errorf("the password is shown:\n%s", text)
		}
	}
}
