//go:build !faults

package systemtest

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	api "portmaster/client"
)

// Without a terminal a signal to exec reaches the command and what it started, once.
func TestExecPassesSignalsOn(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 4)
	for got, signal := range map[string]syscall.Signal{
		"interrupt": syscall.SIGINT, "terminated": syscall.SIGTERM, "hangup": syscall.SIGHUP, "quit": syscall.SIGQUIT,
	} {
		t.Run(got, func(t *testing.T) {
			t.Parallel()
			p := s.execChild("exec", "report", "ci", os.Args[0])
			p.says("^command started")
			p.says("^grandchild started")
			p.signal(syscall.SIGUSR1)
			p.says("^command got user-defined-signal-1")
			p.signal(signal)
			p.ends(3)
			for _, who := range []string{"command got ", "grandchild got "} {
				if strings.Count(p.text(), who) != 2 || strings.Count(p.text(), who+got) != 1 {
					t.Errorf("not each signal came once:\n%s", p.text())
				}
			}
		})
	}
}

// The lease is renewed until the command has exited, however long it takes to end.
func TestExecKeepsThePortWhileItsCommandEnds(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	p := s.exec("exec", "--lease", "1s", "ci", "sh", "-c", `trap 'sleep 3; echo over; exit 6' TERM; echo up; while :; do sleep 0.05; done`)
	p.says("^up$")
	p.signal(syscall.SIGTERM)
	next, err := s.client.Claim(t.Context(), "ci", api.Request{Name: "next"}, api.Wait{Longest: patience})
	if err != nil || !strings.Contains(p.text(), "over") {
		t.Errorf("%+v, %v: the next one has the port while the command still runs:\n%s", next, err, p.text())
	}
	p.ends(6)
}

// A lease that nobody asked for yields to that of the service; one that somebody asked for does not.
func TestExecTakesAShorterLeaseOfTheService(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	if _, err := s.client.Change(t.Context(), "ci", api.Change{MaxLease: new(3 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	s.exec("plain", "ci", "true").ends(0)
	p := s.exec("asks", "--lease", "90s", "ci", "true")
	p.ends(125)
	p.says("INVALID.*lease")

	if _, err := s.client.Change(t.Context(), "ci", api.Change{DefaultLease: new(time.Hour), MaxLease: new(time.Duration)}); err != nil {
		t.Fatal(err)
	}
	s.exec("long", "ci", "sleep", "60")
	if left := time.Until(s.allocation().Expires); left > 2*time.Minute {
		t.Errorf("the lease ends in %v", left)
	}
}

// What ignores signals, as nohup does and a script in its background, has exec and its command ignore them. Who reads what exec says
// may go away.
func TestExecIgnoresWhatItWasStartedToIgnore(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	c := s.execution("exec", "", "ci", "sh", "-c", `kill -INT $$; kill -INT $PPID; kill -HUP $PPID; sleep 0.2; kill -HUP $$; echo goes on`)
	c.args = append([]string{"sh", "-c", `trap '' INT HUP; exec "$@"`, "sh"}, c.args...)
	p := startProcess(t, c)
	p.ends(0)
	p.says("^goes on$")

	c = s.execution("exec", "", "--on-lost", "warn", "--lease", "1s", "--name", "job-1", "ci", "sh", "-c", "sleep 1; exit 7")
	c.args = append([]string{"sh", "-c", `exec 3>&1; { "$@" 2>&1; echo code $? >&3; } | :`, "sh"}, c.args...)
	p = startProcess(t, c)
	if err := s.client.Release(t.Context(), s.allocation()); err != nil {
		t.Fatal(err)
	}
	p.ends(0)
	p.says("^code 7$")
}

// When exec is killed, the kernel ends its command, and the port comes back with the end of the lease.
func TestExecKilled(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	p := s.execChild("exec", "bind", "--lease", "1s", "ci", os.Args[0], "60s")
	p.says(`bound`)
	p.kill()
	s.allFree()
	next := s.execChild("next", "bind", "ci", os.Args[0], "0s")
	next.ends(0) // its check and its command find the port free
}

// A server that is away for less than the lease is not noticed. Then the command is told to stop, and killed if it does not.
func TestExecLosesItsServer(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 3)
	p := s.execChild("exec", "report", "--lease", "4s", "ci", os.Args[0])
	warned := s.exec("warned", "--on-lost", "warn", "--lease", "4s", "ci", "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done")
	stubborn := s.exec("stubborn", "--grace", "100ms", "--lease", "4s", "ci", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
	p.says("^command started")
	eventually(t, "all ports are held", func() bool { ports, _ := s.counts(); return ports.Allocated == 3 })
	s.signal(syscall.SIGSTOP)
	time.Sleep(time.Second)
	s.signal(syscall.SIGCONT)
	time.Sleep(3500 * time.Millisecond) // more than a lease after the last renewal before
	if ports, _ := s.counts(); ports.Allocated != 3 || strings.Contains(p.text(), "got") || warned.text() != "" {
		t.Fatalf("after a second %+v is left, and it says %s%s", ports, p.text(), warned.text())
	}
	s.signal(syscall.SIGSTOP)
	p.says("^command got terminated")
	p.ends(75)
	p.says(`^portmaster: lost port \d+ of ci: .*; stopping \S+$`)
	stubborn.ends(75)
	warned.says(`^portmaster: lost port \d+ of ci: .*; sh goes on$`)
	s.signal(syscall.SIGCONT)
	warned.signal(syscall.SIGTERM)
	warned.ends(6)
	for _, all := range []*process{p, warned, stubborn} {
		if n := strings.Count(all.text(), "portmaster: "); n != 1 {
			t.Errorf("it says %d lines:\n%s", n, all.text())
		}
	}
	s.allFree()
}

// An operator who releases a port takes it from its command.
func TestExecLosesAPortToAnOperator(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	p := s.execChild("exec", "report", "--lease", "1s", "--name", "job-1", "ci", os.Args[0])
	p.says("^command started")
	if err := s.client.Release(t.Context(), s.allocation()); err != nil {
		t.Fatal(err)
	}
	next, err := s.client.Claim(t.Context(), "ci", api.Request{Name: "next"}, api.Wait{})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("tcp", fmt.Sprint(":", next.Port)) // as the next one does
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p.ends(75)
	p.says(`^portmaster: lost port \d+ of ci: .*PORT_NOT_FOUND.*; stopping`)
	if strings.Count(p.text(), "portmaster: ") != 1 {
		t.Errorf("it tells of a port that is not its own:\n%s", p.text())
	}
	if now := s.allocation(); now.Fence != next.Fence {
		t.Errorf("the port is not the next one's any more: %+v", now)
	}
}
