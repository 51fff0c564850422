package systemtest

import (
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	api "portmaster/client"
)

// execServer is a server with a service ci, for portmaster exec.
type execServer struct {
	*replica
	client *api.Client
	start  int // the first port of ci
}

// serveExec starts a server with a store inside it, and defines the service ci with so many ports that nobody uses.
func serveExec(t *testing.T, ports int, settings ...string) *execServer {
	t.Helper()
	s := &execServer{replica: startPortmaster(t, "portmaster", settings...), start: freePorts(t, ports)}
	s.awaitReady()
	var err error
	if s.client, err = api.New(s.url, api.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	s.define("ci", s.start, ports)
	return s
}

func (s *execServer) define(service string, start, ports int) {
	s.t.Helper()
	if _, err := s.client.Define(s.t.Context(), api.Definition{Name: service, Start: start, End: start + ports - 1}); err != nil {
		s.t.Fatal(err)
	}
}

// counts says how many ports of ci are in each state, and how many calls wait for one.
func (s *execServer) counts() (api.PortCounts, int) {
	s.t.Helper()
	read, err := s.client.Service(s.t.Context(), "ci")
	if err != nil {
		s.t.Fatal(err)
	}
	return read.Ports, read.Waiting
}

// allocation waits until a port of ci is held, and returns the first.
func (s *execServer) allocation() (first api.Allocation) {
	s.t.Helper()
	eventually(s.t, "a port is held", func() bool {
		for a, err := range s.client.Allocations(s.t.Context(), "ci") {
			first = a
			return err == nil
		}
		return false
	})
	return first
}

// allFree waits until all ports of ci are free.
func (s *execServer) allFree() {
	s.t.Helper()
	eventually(s.t, "all ports are free", func() bool {
		ports, _ := s.counts()
		return ports.Free == ports.Total
	})
}

// exec starts portmaster exec.
func (s *execServer) exec(name string, args ...string) *process {
	s.t.Helper()
	return startProcess(s.t, s.execution(name, "", args...))
}

// execChild is exec with a child that does what runChild can.
func (s *execServer) execChild(name, what string, args ...string) *process {
	s.t.Helper()
	return startProcess(s.t, s.execution(name, what, args...))
}

func (s *execServer) execution(name, what string, args ...string) command {
	env := append(withoutSettings(os.Environ()), "PORTMASTER_SERVER="+s.url, asChild+"="+what, "TERM=xterm")
	return command{name: name, args: append([]string{portmaster(s.t), "exec"}, args...), env: env}
}

// says waits until a process has written a line that matches, and returns what the parentheses match.
func (p *process) says(pattern string) string {
	p.t.Helper()
	found, line := []string(nil), regexp.MustCompile(`(?m)`+pattern)
	eventually(p.t, p.command.name+" says "+pattern, func() bool {
		found = line.FindStringSubmatch(p.text())
		return found != nil
	})
	return found[len(found)-1]
}

// ends sees that a process ends with an exit code.
func (p *process) ends(code int) {
	p.t.Helper()
	if got := p.wait(); got != code {
		p.t.Errorf("%s: exit code %d, want %d: %s", p.command.name, got, code, p.tail())
	}
}

// The ports that exec tests hand out are above those that servers of tests listen on (see storetest.FreeAddr), below those that the
// system chooses, and each test of this process has its own: none is in use unless its test says so.
const firstExecPort, lastExecPort = 30_000, 32_767

var execPorts atomic.Int64 // how many were taken

var execPortsFrom = rand.IntN(lastExecPort - firstExecPort) // other runs of the tests on this machine begin elsewhere

// freePorts returns the first of so many consecutive ports that nobody uses.
func freePorts(t *testing.T, count int) (start int) {
	t.Helper()
	for range 1000 {
		taken := execPortsFrom + int(execPorts.Add(int64(count))) - count
		start = firstExecPort + taken%(lastExecPort-firstExecPort-count)
		inUse := slices.ContainsFunc(make([]int, count), func(int) bool {
			address := ":" + strconv.Itoa(start)
			start++
			stream, err := net.Listen("tcp", address)
			if err != nil {
				return true
			}
			defer stream.Close()
			packets, err := net.ListenPacket("udp", address)
			if err != nil {
				return true
			}
			return packets.Close() != nil
		})
		if !inUse {
			return start - count
		}
	}
	t.Fatalf("there are no %d free ports in a row", count)
	return 0
}
