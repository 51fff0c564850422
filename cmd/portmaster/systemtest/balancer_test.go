//go:build faults

package systemtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// balancer is HAProxy with the file that deployments/ has for it.
type balancer struct {
	*process
	url string // http://host:port
}

// startBalancer starts HAProxy before three servers, and waits until it has all of them.
func startBalancer(t testing.TB, replicas []*replica) *balancer {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program = "/usr/sbin/haproxy" // Debian's, where PATH is not root's
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Fatal("haproxy is missing: apt-get install haproxy")
	}
	file, err := filepath.Abs("../../../deployments/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	env := append(os.Environ(), "HAPROXY_BIND="+addr)
	for i, url := range urls(replicas) {
		env = append(env, fmt.Sprintf("REPLICA_%d=%s", i+1, strings.TrimPrefix(url, "http://")))
	}
	b := &balancer{url: "http://" + addr}
	b.process = startProcess(t, command{name: "haproxy", args: []string{program, "-db", "-f", file}, env: env})
	b.await("it has a server", func() bool { return ready(b.url) })
	return b
}

// found counts how often the balancer has found a server UP or DOWN.
func (b *balancer) found(state string) int {
	b.t.Helper()
	log, err := os.ReadFile(b.log)
	if err != nil {
		b.t.Fatal(err)
	}
	return bytes.Count(log, []byte(" is "+state+","))
}

// TestHalfClosed claims ports as clients that close their side of the connection once they have sent their request, such as "nc -N".
// Each is told its port and its secret. If such a call waits for a port, it leaves the line instead.
func TestHalfClosed(t *testing.T) {
	node := startRedis(t, redisOptions{})
	replicas := startServers(t, 3, node.addr)
	b := startBalancer(t, replicas)
	define(t, b.url, service{"default", "half"}, 5000, 5039)

	const claims = 40
	told := 0
	for i := range claims {
		conn := sendClaim(t, b.url, "/v1/services/half/ports", fmt.Sprint("web-", i))
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		var allocation struct {
			Port   int
			Secret string
		}
		if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Errorf("web-%d: %v", i, err)
		} else if err := json.NewDecoder(response.Body).Decode(&allocation); err == nil && allocation.Port > 0 && allocation.Secret != "" {
			told++
		} else {
			t.Errorf("web-%d: status %d, %v", i, response.StatusCode, err)
		}
		conn.Close()
	}

	waiting := func() int64 { return node.client.ZCard(t.Context(), "portmaster:{default}:line:half").Val() }
	conn := sendClaim(t, b.url, "/v1/services/half/ports?wait=30", "late")
	eventually(t, "a call waits in line", func() bool { return waiting() == 1 })
	left := time.Now()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the call has left the line", func() bool { return waiting() == 0 })
	took := time.Since(left)
	t.Logf("%d of %d half-closed claims were answered; a call that waits left the line after %s", told, claims, took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Error("that is too late")
	}
}

// sendClaim sends a claim on a connection of its own.
func sendClaim(t *testing.T, url, path, name string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	body := fmt.Sprintf(`{"name":%q}`, name)
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}
