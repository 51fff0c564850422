//go:build faults

package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// lan is a network of the test's own: hosts on one switch, each a network namespace. The test is on it, too, outside of
// them. The switch is in a namespace, so that no firewall of the machine has a say in what passes it.
type lan struct {
	t      testing.TB
	name   string // begins the names of its namespaces
	subnet netip.Prefix
	hosts  []host
}

// host is where one process of a lan runs.
type host struct {
	namespace string
	ip        netip.Addr
}

// at returns an address of the host.
func (h host) at(port int) string { return netip.AddrPortFrom(h.ip, uint16(port)).String() }

// newLAN makes a network without hosts. It ends with the test; what a test that was killed has left is removed here.
func newLAN(t testing.TB) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a network of its own needs root: this test must run as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Fatal("a network of its own needs iproute2: ip is not on the PATH")
	}
	removeStaleLANs(t)
	subnet := freeSubnet(t)
	parts := subnet.Addr().As4()
	l := &lan{t: t, subnet: subnet, name: fmt.Sprintf("%s%d-%d", lanPrefix, os.Getpid(), parts[2])}
	l.addNamespace(l.hub())
	runIP(t, "-n", l.hub(), "link", "add", "hub", "type", "bridge")
	runIP(t, "-n", l.hub(), "link", "set", "dev", "hub", "up")
	uplink := fmt.Sprintf("portmaster%d", parts[2])
	runIP(t, "link", "add", uplink, "type", "veth", "peer", "name", "test", "netns", l.hub())
	runIP(t, "-n", l.hub(), "link", "set", "dev", "test", "master", "hub", "up")
	runIP(t, "address", "add", l.address(1).String()+"/24", "dev", uplink)
	runIP(t, "link", "set", "dev", uplink, "up")
	return l
}

// addHost makes a host.
func (l *lan) addHost(name string) host {
	l.t.Helper()
	h := host{namespace: l.name + "-" + name, ip: l.address(10 + len(l.hosts))}
	l.addNamespace(h.namespace)
	runIP(l.t, "-n", h.namespace, "link", "set", "dev", "lo", "up")
	runIP(l.t, "-n", h.namespace, "link", "add", "lan", "type", "veth", "peer", "name", name, "netns", l.hub())
	runIP(l.t, "-n", l.hub(), "link", "set", "dev", name, "master", "hub", "up")
	runIP(l.t, "-n", h.namespace, "address", "add", h.ip.String()+"/24", "dev", "lan")
	runIP(l.t, "-n", h.namespace, "link", "set", "dev", "lan", "up")
	l.hosts = append(l.hosts, h)
	return h
}

// nobody is a hardware address that no host has.
const nobody = "00:00:5e:00:53:01"

// cutOff loses every packet between the given hosts and the others, those of open connections, too: each host takes those of
// the other side to be at a hardware address where nobody is. (A blackhole route would tell a program at once that there is
// no way, and a network that fails does not.) The test still reaches all.
func (l *lan) cutOff(hosts ...host) {
	l.t.Helper()
	var rest []host
	for _, h := range l.hosts {
		if !slices.Contains(hosts, h) {
			rest = append(rest, h)
		}
	}
	for _, h := range hosts {
		l.lose(h, rest)
	}
	for _, h := range rest {
		l.lose(h, hosts)
	}
}

// lose loses what a host sends to some others.
func (l *lan) lose(from host, to []host) {
	l.t.Helper()
	var commands strings.Builder
	for _, h := range to {
		fmt.Fprintln(&commands, "neighbour replace", h.ip, "lladdr", nobody, "dev lan nud permanent")
	}
	ip := exec.Command("ip", "-n", from.namespace, "-batch", "-")
	ip.Stdin = strings.NewReader(commands.String())
	output(l.t, ip)
}

// heal ends every cut.
func (l *lan) heal() {
	l.t.Helper()
	for _, h := range l.hosts {
		runIP(l.t, "-n", h.namespace, "neighbour", "flush", "nud", "permanent", "dev", "lan")
	}
}

// hub returns the namespace of the switch.
func (l *lan) hub() string { return l.name + "-hub" }

// address returns the nth address of the network.
func (l *lan) address(n int) netip.Addr {
	bytes := l.subnet.Addr().As4()
	bytes[3] = byte(n)
	return netip.AddrFrom4(bytes)
}

func (l *lan) addNamespace(name string) {
	l.t.Helper()
	runIP(l.t, "netns", "add", name)
	l.t.Cleanup(func() { runIP(l.t, "netns", "delete", name) })
}

// lanPrefix begins the names of all namespaces of lans. The id of their process follows.
const lanPrefix = "portmaster-faults-"

// removeStaleLANs removes the networks of processes that are no more.
func removeStaleLANs(t testing.TB) {
	t.Helper()
	for _, name := range namespaces(t) {
		rest, ours := strings.CutPrefix(name, lanPrefix)
		owner, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(owner)
		if ours && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			// Two tests that start at the same time may both want to remove it.
			_ = exec.Command("ip", "netns", "delete", name).Run()
		}
	}
}

// namespaces lists the network namespaces of the machine.
func namespaces(t testing.TB) (names []string) {
	t.Helper()
	for line := range strings.Lines(string(runIP(t, "netns", "list"))) {
		names = append(names, strings.Fields(line)[0])
	}
	return names
}

// freeSubnet returns a range of addresses to which the machine has no route. It is one of those set apart for tests of
// network devices (RFC 2544), which neither the Internet nor an office uses.
func freeSubnet(t testing.TB) netip.Prefix {
	t.Helper()
	var routes []struct{ Dst string }
	if err := json.Unmarshal(runIP(t, "-4", "-json", "route", "show", "table", "all"), &routes); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(rand.IntN(256)), 0}), 24)
		if !slices.ContainsFunc(routes, func(route struct{ Dst string }) bool { return meets(route.Dst, subnet) }) {
			return subnet
		}
	}
	t.Fatal("every range of 198.18.0.0/16 is in use on this machine")
	return netip.Prefix{}
}

// meets reports whether the target of a route, an address or a range, lies in the subnet or holds it.
func meets(target string, subnet netip.Prefix) bool {
	if addr, err := netip.ParseAddr(target); err == nil {
		return subnet.Contains(addr)
	}
	prefix, err := netip.ParsePrefix(target)
	return err == nil && prefix.Overlaps(subnet) // the default route is no range
}

// runIP runs ip, and returns what it prints.
func runIP(t testing.TB, args ...string) []byte {
	t.Helper()
	return output(t, exec.Command("ip", args...))
}

// output runs a command, and returns what it prints.
func output(t testing.TB, cmd *exec.Cmd) []byte {
	t.Helper()
	printed, err := cmd.Output()
	if err != nil {
		var says []byte
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			says = exit.Stderr
		}
		t.Fatalf("%v: %v: %s", cmd, err, says)
	}
	return printed
}
