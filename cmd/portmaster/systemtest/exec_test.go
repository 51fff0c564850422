//go:build !faults

package systemtest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	api "portmaster/client"
)

func TestExecEndsAsItsCommandDoes(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 3)
	nothing := s.execution("", "")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"ci true", 0, `^$`},
		{"ci -- sh -c 'exit 7'", 7, `^$`},
		{"ci sh -c 'kill -TERM $$'", 143, `^$`},
		{"ci sh -c 'kill -KILL $$'", 137, `^$`},
		{"ci -- echo {PORT} {PORT_CI} {}", 0, fmt.Sprintf(`^%d %[1]d \{\}\n$`, s.start)},
		{"--name job-1 ci=WEB sh -c 'echo $PORT $PORT_WEB $PORTMASTER_NAME $PORTMASTER_FENCE'", 0, `^(\d+) \d+ job-1 \d{16}\n$`},
		{"--prefer " + strconv.Itoa(s.start+2) + " ci -- echo {PORT}", 0, fmt.Sprintf(`^%d\n$`, s.start+2)},
		{"--count 3 ci -- echo {PORT}", 0, fmt.Sprintf(`^%d\n$`, s.start)},
		{"ci sh -c 'kill -INT $$'", 130, `^$`},
		{"ci cat <<X\nhi\nX", 0, `^hi\n$`},
		{"--lease 30d --wait 1.5 ci true", 0, `^$`},
		{"ci /", 126, `^portmaster: exec: "/": .*\n$`},
		{"ci portmaster-has-no-such-command", 127, `^portmaster: exec: .*\n$`},
		{"ci ./no/such/command", 127, `^portmaster: exec: .*\n$`},
		{"--wait 0 nothing true", 125, `^portmaster: no port of nothing: SERVICE_NOT_FOUND: .*\n$`},
		{"--wait 0 --count 4 ci true", 125, `^portmaster: no port of ci: INVALID: .*\n$`},
		{"--wait 0 --server http://127.0.0.1:1 ci true", 125, `^portmaster: no port of ci: UNAVAILABLE: .*\n$`},
		{"--wait 0 --name a, ci true", 125, `^portmaster: no port of ci: INVALID: .*\n$`},
		{"ci", 125, `^portmaster: .*--help\n$`},
	} {
		shell := nothing
		shell.name, shell.args = "exec", []string{"sh", "-c", "exec '" + nothing.args[0] + "' exec " + c.args}
		p := startProcess(t, shell)
		if code := p.wait(); code != c.code || !regexp.MustCompile(c.says).MatchString(p.text()) {
			t.Errorf("exec %s: exit code %d, and it says %q", c.args, code, p.text())
		}
		s.allFree()
	}
}

// A program that cannot be run at all, such as a script without an interpreter, has had its port, and gives it back.
func TestExecGivesBackThePortOfACommandThatDoesNotStart(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	script := t.TempDir() + "/script"
	for text, code := range map[string]int{"#!/no/such/interpreter\n": 127, "neither a script nor a program\n": 126} {
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		s.exec("exec", "ci", script).ends(code)
		s.allFree()
	}
}

func TestExecSkipsPortsInUse(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 7)
	for i, address := range []string{"tcp4 127.0.0.1", "tcp6 ::1", "tcp ", "udp4 127.0.0.1", "udp6 ::"} {
		network, host, _ := strings.Cut(address, " ")
		var socket interface{ Close() error }
		var err error
		if address = net.JoinHostPort(host, strconv.Itoa(s.start+i)); network[:3] == "tcp" {
			if socket, err = net.Listen(network, address); errors.Is(err, syscall.EADDRNOTAVAIL) { // there is no IPv6
				socket, err = net.Listen("tcp4", fmt.Sprint("127.0.0.1:", s.start+i))
			}
		} else {
			socket, err = net.ListenPacket(network, address)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
	}
	p := s.execChild("exec", "bind", "ci", os.Args[0], "0s")
	p.ends(0)
	p.says(fmt.Sprintf("bound %d$", s.start+5))
	p.says(fmt.Sprintf("^portmaster: udp %d of ci is in use on this machine", s.start+4))
	if ports, _ := s.counts(); ports.Cooling != 5 || ports.Free != 2 {
		t.Errorf("there are %+v", ports)
	}
	s.exec("blind", "--check", "none", "--prefer", strconv.Itoa(s.start+6), "ci", "true").ends(0)
}

func TestExecOfSeveralServicesHasAllOrNone(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 2)
	s.define("db", freePorts(t, 1), 1)
	p := s.exec("all", "--lease", "2s", "db", "ci=A", "ci=B", "--", "sh", "-c", `echo "$PORT $PORT_DB $PORT_A $PORT_B"; exec sleep 60`)
	p.says(fmt.Sprintf(`^(\d+) \d+ %d %d$`, s.start, s.start+1))
	if err := s.client.Release(t.Context(), api.Allocation{Service: "ci", Port: s.start + 1}); err != nil {
		t.Fatal(err)
	}
	p.ends(75) // it has lost one, and gives back all
	s.allFree()
	held, err := s.client.Claim(t.Context(), "db", api.Request{Name: "holder"}, api.Wait{})
	if err != nil {
		t.Fatal(err)
	}
	s.exec("none", "--wait", "0", "db", "ci", "--", "true").ends(125)
	s.allFree()
	if err := s.client.Release(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	s.exec("again", "--wait", "0", "ci", "db", "--", "true").ends(0)
	s.allFree()
}

// Execs of the same services never wait for each other crosswise, in whichever order they name them.
func TestExecsOfSeveralServicesAllRun(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	s.define("db", freePorts(t, 1), 1)
	var all []*process
	for i := range 10 {
		services := []string{"ci", "db"}
		if i%2 == 0 {
			slices.Reverse(services)
		}
		all = append(all, s.exec(fmt.Sprint("exec-", i), append(services, "--", "sleep", "0.05")...))
	}
	for _, p := range all {
		p.ends(0)
	}
	s.allFree()
}

// The default name may be taken: in a container with the same host name that has the same process ids. exec then takes another one.
func TestExecTakesAnotherNameThanOneThatIsTaken(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 2)
	c := s.execution("exec", "", "ci", "sh", "-c", "echo $PORTMASTER_NAME")
	c.args = append([]string{"sh", "-c", `echo $$; until [ -e go ]; do sleep 0.05; done; exec "$@"`, "sh"}, c.args...)
	p := startProcess(t, c)
	pid := p.says(`^(\d+)$`)
	c.args = append([]string{"sh", "-c", `cd "$0" && exec "$@"`, p.cmd.Dir}, c.args[4:]...)
	first := startProcess(t, c)
	first.ends(0)
	name := regexp.MustCompile(`\d+\n$`).ReplaceAllString(first.text(), pid)
	if _, err := s.client.Claim(t.Context(), "ci", api.Request{Name: name}, api.Wait{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.cmd.Dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.ends(0)
	p.says("^" + regexp.QuoteMeta(name) + `\.[0-9a-f]{8}$`)
	s.exec("given", "--name", name, "ci", "true").ends(125)
}

func TestExecTellsOfADaemonThatItsCommandLeft(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	p := s.execChild("exec", "daemon", "ci", os.Args[0])
	p.ends(0)
	p.says(fmt.Sprintf(`^portmaster: \S+ has exited, and port %d of ci is still in use`, s.start))
	if ci, err := s.client.Service(t.Context(), "ci"); err != nil || ci.Ports.Cooling != 1 {
		t.Errorf("the port is not quarantined: %+v %v", ci.Ports, err)
	}
}

// Signals count while exec waits: it leaves the waitlist, and nothing is left of it.
func TestExecIsInterruptedWhileItWaits(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	holder := s.exec("holder", "--name", "holder", "ci", "sleep", "60")
	s.allocation()
	waiter := s.exec("waiter", "ci", "true")
	eventually(t, "a call waits", func() bool { _, waiting := s.counts(); return waiting == 1 })
	waiter.signal(syscall.SIGTERM)
	waiter.ends(143)
	if text := waiter.text(); text != "" {
		t.Errorf("outside of a terminal it says %q", text)
	}
	holder.signal(syscall.SIGINT)
	holder.ends(130)
	s.allFree()
	s.exec("taken", "--wait", "1s", "--name", "a", "ci", "true").ends(0)
}

func TestExecWaitsForTheServer(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	server, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddr(t)
	s.url = "http://" + address
	p := s.exec("exec", "ci", "echo", "ran")
	brief := s.exec("brief", "--wait", "500ms", "ci", "echo", "ran")
	p.says(`^portmaster: waiting for the server: UNAVAILABLE: `)
	brief.ends(125)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go http.Serve(listener, httputil.NewSingleHostReverseProxy(server))
	p.ends(0)
	p.says(`^ran$`)
	if strings.Contains(brief.text(), "ran") {
		t.Error("a command ran without a port")
	}
	s.allFree()
}

// Execs on the waitlist run in the order in which they came: their fences grow.
func TestExecKeepsTheOrder(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	first, err := s.client.Claim(t.Context(), "ci", api.Request{Name: "first"}, api.Wait{})
	if err != nil {
		t.Fatal(err)
	}
	var all []*process
	for i := range 8 {
		all = append(all, s.exec(fmt.Sprint("exec-", i), "ci", "sh", "-c", "echo $PORTMASTER_FENCE"))
		eventually(t, "it waits", func() bool { _, waiting := s.counts(); return waiting == i+1 })
	}
	if err := s.client.Release(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	last := first.Fence
	for _, p := range all {
		p.ends(0)
		fence, err := strconv.ParseInt(regexp.MustCompile(`\d+`).FindString(p.text()), 10, 64)
		if err != nil || fence <= last {
			t.Errorf("%s has the fence %d after %d, %v", p.command.name, fence, last, err)
		}
		last = fence
	}
}
