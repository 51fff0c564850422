//go:build faults

package systemtest

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNetwork cuts a host off, and looks whether it shows: on open connections and on new ones, and on no others.
func TestNetwork(t *testing.T) {
	l := newLAN(t)
	one, two, three := l.addHost("one"), l.addHost("two"), l.addHost("three")
	open := []string{"--protected-mode", "no", "--repl-diskless-sync-delay", "0"}
	master := startRedis(t, redisOptions{namespace: one.namespace, addr: one.at(6379), args: open})
	for _, h := range []host{two, three} {
		startRedis(t, redisOptions{namespace: h.namespace, addr: h.at(6379), args: append(open, "--replicaof", one.ip.String(), "6379")})
	}
	replicas := func() int64 { // that answer on the connection that they have
		conn := master.client.Conn()
		defer conn.Close()
		conn.Set(t.Context(), "key", "value", 0)
		return conn.Wait(t.Context(), 2, 300*time.Millisecond).Val()
	}
	answers := func(from, to host) bool { // on a new connection
		ping := exec.Command("ip", "netns", "exec", from.namespace, "timeout", "1", "redis-cli", "-h", to.ip.String(), "ping")
		printed, _ := ping.Output()
		return strings.Contains(string(printed), "PONG")
	}
	eventually(t, "both replicas answer", func() bool { return replicas() == 2 })

	l.cutOff(two)
	if n := replicas(); n != 1 {
		t.Errorf("one of two replicas is cut off, and %d answer", n)
	}
	for _, from := range []host{one, two, three} {
		for _, to := range []host{one, two, three} {
			if want := (from == two) == (to == two); answers(from, to) != want {
				t.Errorf("%s reaches %s: %v", from.namespace, to.namespace, !want)
			}
		}
	}
	if err := adminClient(t, two.at(6379)).Ping(t.Context()).Err(); err != nil {
		t.Errorf("the test does not reach the host that is cut off: %v", err)
	}

	l.heal()
	eventually(t, "both replicas answer again", func() bool { return replicas() == 2 })
	if !answers(two, one) || !answers(one, two) {
		t.Error("after it was healed, the host is still cut off")
	}
}

// TestNetworksEnd looks whether networks end with their test, and those of a test that was killed with the next one.
func TestNetworksEnd(t *testing.T) {
	var ended *lan
	t.Run("with their test", func(t *testing.T) {
		ended = newLAN(t)
		ended.addHost("one")
	})
	left := slices.DeleteFunc(namespaces(t), func(name string) bool { return !strings.HasPrefix(name, ended.name) })
	if len(left) > 0 {
		t.Errorf("these are left: %v", left)
	}

	killed := exec.Command("true")
	if err := killed.Run(); err != nil {
		t.Fatal(err)
	}
	stale := fmt.Sprintf("%s%d-1-one", lanPrefix, killed.Process.Pid)
	runIP(t, "netns", "add", stale)
	running := newLAN(t)
	newLAN(t)
	if names := namespaces(t); slices.Contains(names, stale) || !slices.Contains(names, running.hub()) {
		t.Errorf("%s is to be gone, and %s is to be there: %v", stale, running.hub(), names)
	}
}
