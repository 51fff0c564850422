package exec

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// occupant is a socket that keeps a port from others.
type occupant struct {
	name     string
	kind     int // SOCK_STREAM or SOCK_DGRAM
	host     string
	listens  bool
	v6only   bool
	options  []int // of SOL_SOCKET
	protocol string
}

var occupants = []occupant{
	{name: "IPv4 wildcard", kind: unix.SOCK_STREAM, host: "0.0.0.0", listens: true, protocol: "tcp"},
	{name: "IPv4 loopback", kind: unix.SOCK_STREAM, host: "127.0.0.1", listens: true, protocol: "tcp"},
	{name: "another loopback", kind: unix.SOCK_STREAM, host: "127.0.0.9", listens: true, protocol: "tcp"},
	{name: "IPv6 and IPv4 wildcard", kind: unix.SOCK_STREAM, host: "::", listens: true, protocol: "tcp"},
	{name: "IPv6 only", kind: unix.SOCK_STREAM, host: "::", listens: true, v6only: true, protocol: "tcp"},
	{name: "IPv6 loopback", kind: unix.SOCK_STREAM, host: "::1", listens: true, protocol: "tcp"},
	{name: "with REUSEADDR", kind: unix.SOCK_STREAM, host: "127.0.0.1", listens: true, options: []int{unix.SO_REUSEADDR}, protocol: "tcp"},
	{name: "with REUSEPORT", kind: unix.SOCK_STREAM, host: "0.0.0.0", listens: true, options: []int{unix.SO_REUSEPORT}, protocol: "tcp"},
	{name: "bound, IPv4", kind: unix.SOCK_STREAM, host: "127.0.0.1", protocol: "tcp"},
	{name: "bound, IPv6", kind: unix.SOCK_STREAM, host: "::1", protocol: "tcp"},
	{name: "UDP, IPv4 loopback", kind: unix.SOCK_DGRAM, host: "127.0.0.1", protocol: "udp"},
	{name: "UDP, IPv6 only", kind: unix.SOCK_DGRAM, host: "::", v6only: true, protocol: "udp"},
	{name: "UDP with REUSEPORT", kind: unix.SOCK_DGRAM, host: "0.0.0.0", options: []int{unix.SO_REUSEPORT}, protocol: "udp"},
	{name: "UDP with REUSEADDR", kind: unix.SOCK_DGRAM, host: "0.0.0.0", options: []int{unix.SO_REUSEADDR}, protocol: "udp"},
}

// freePort returns a port that nothing uses, nor the one below it. The kernel gives it to no connection.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10_001 + rand.IntN(20_000)
		if occupied, err := (checks{"tcp", "udp"}).occupied(port-1, 2); err == nil && occupied == "" {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// occupy opens the socket on a port of its own, which it returns.
func (o occupant) occupy(t *testing.T) int {
	t.Helper()
	domain, v4 := unix.AF_INET6, net.ParseIP(o.host).To4()
	if v4 != nil {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, o.kind|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	for _, option := range o.options {
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1))
	}
	if o.v6only {
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	}
	port, bound := 0, unix.EADDRINUSE
	for bound == unix.EADDRINUSE { // such as one in TIME_WAIT
		port = freePort(t)
		var address unix.Sockaddr = &unix.SockaddrInet6{Port: port, Addr: [16]byte(net.ParseIP(o.host).To16())}
		if v4 != nil {
			address = &unix.SockaddrInet4{Port: port, Addr: [4]byte(v4)}
		}
		bound, _ = unix.Bind(fd, address).(unix.Errno)
	}
	if bound == unix.EADDRNOTAVAIL {
		t.Skip("this machine has no such address")
	} else if bound != 0 {
		t.Fatal(bound)
	}
	if o.listens {
		must(t, unix.Listen(fd, 1))
	}
	return port
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckFindsEveryOccupant(t *testing.T) {
	for _, o := range occupants {
		t.Run(o.name, func(t *testing.T) {
			port, other := o.occupy(t), checks{"tcp"}
			if o.protocol == "tcp" {
				other = checks{"udp"}
			}
			if got, err := (checks{"tcp", "udp"}).occupied(port, 1); err != nil || got != fmt.Sprintf("%s %d", o.protocol, port) {
				t.Errorf("it finds %q, %v", got, err)
			}
			if got, err := (checks{o.protocol}).occupied(port-1, 2); err != nil || got == "" {
				t.Errorf("in a block it finds %q, %v", got, err)
			}
			if got, err := other.occupied(port, 1); err != nil || got != "" {
				t.Errorf("of another protocol it finds %q, %v", got, err)
			}
		})
	}
}

// A connection that a program on this machine opened from the port has it, too.
func TestCheckFindsAnOutgoingConnection(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer server.Close()
	connection, err := net.Dial("tcp", server.Addr().String())
	must(t, err)
	defer connection.Close()
	port := connection.LocalAddr().(*net.TCPAddr).Port
	if got, err := (checks{"tcp"}).occupied(port, 1); err != nil || got == "" {
		t.Errorf("it finds %q, %v", got, err)
	}
}

// A server that closed its connections and ended leaves its port in TIME_WAIT, and the next server can have it.
func TestCheckIgnoresTimeWait(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		server, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(freePort(t))))
		if errors.Is(err, unix.EADDRNOTAVAIL) { // it has no IPv6
			continue
		}
		must(t, err)
		client, err := net.Dial("tcp", server.Addr().String())
		must(t, err)
		accepted, err := server.Accept()
		must(t, err)
		must(t, accepted.Close()) // it closes first, so it is the side that gets into TIME_WAIT
		client.Read(make([]byte, 1))
		must(t, client.Close())
		must(t, server.Close())

		port := server.Addr().(*net.TCPAddr).Port
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
		must(t, err)
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrInet6{Port: port}); err != unix.EADDRINUSE { // it has no SO_REUSEADDR
			t.Fatalf("the port is not in TIME_WAIT: %v", err)
		}
		if got, err := (checks{"tcp", "udp"}).occupied(port, 1); err != nil || got != "" {
			t.Errorf("%s: it finds %q, %v", host, got, err)
		}
	}
}

func TestChecksAreRead(t *testing.T) {
	for text, want := range map[string]string{"tcp": "[tcp]", "udp,tcp": "[udp tcp]", "tcp,tcp": "[tcp]", "none": "[]"} {
		if got, err := parseChecks(text); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "icmp", "tcp,none", "tcp,", "TCP"} {
		if got, err := parseChecks(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
