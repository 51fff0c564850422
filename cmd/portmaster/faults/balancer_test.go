//go:build faults

package faults

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
