package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"portmaster/allocator/storetest/processes"
)

// TestHAProxyConfig has HAProxy read its file, with the names of compose.yaml and with addresses.
func TestHAProxyConfig(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		_, err := haproxy.run(t, dir, "-c", "-f", "haproxy.cfg")
		return err
	},
		mutant{"haproxy.cfg", "balance roundrobin", "balance roundrobbin", "balance only supports"},
	)
	output, err := haproxyCommand(t, deployments, freeAddr(t), []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, "-c").CombinedOutput()
	if err != nil || strings.Contains(string(output), "ALERT") {
		t.Errorf("%v: %s", err, output)
	}
}

// haproxyCommand is HAProxy by haproxy.cfg, on the address and before the replicas.
func haproxyCommand(t *testing.T, dir, addr string, replicas []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(haproxy.path(t), append([]string{"-db", "-f", filepath.Join(dir, "haproxy.cfg")}, args...)...)
	cmd.Env = []string{"HAPROXY_BIND=" + addr}
	for i, replica := range replicas {
		cmd.Env = append(cmd.Env, fmt.Sprintf("REPLICA_%d=%s", i+1, replica))
	}
	return cmd
}

// startHAProxy starts HAProxy before the replicas, and waits until it listens.
func startHAProxy(t *testing.T, dir string, replicas ...string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	processes.Run(t, haproxyCommand(t, dir, addr, replicas))
	awaitListener(t, addr)
	return addr
}

// No request is sent twice, whatever its method is, and one that no replica had goes to the next.
func TestHAProxyRepeatsNothing(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		var faults []error
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
			dead := deadReplicas(t, 3)
			answer := call(t, method, startHAProxy(t, dir, dead.addrs...))
			if n := dead.requests.Load(); n != 1 || answer.status != http.StatusGatewayTimeout {
				faults = append(faults, fmt.Errorf("a %s was sent %d times and answered with %d", method, n, answer.status))
			}
			if method != "HEAD" {
				faults = append(faults, answer.isProblem("OUTCOME_UNKNOWN"))
			}
			live := liveReplica(t)
			if answer := call(t, method, startHAProxy(t, dir, freeAddr(t), freeAddr(t), live)); answer.status != http.StatusOK {
				faults = append(faults, fmt.Errorf("a %s was answered with %d, with one replica of three there", method, answer.status))
			}
		}
		return errors.Join(faults...)
	},
		mutant{"haproxy.cfg", "retries 3", "retries 3\n    retry-on all-retryable-errors", "a PUT was sent 4 times"},
	)
}

// If no replica is there, the answer reads like the server's own.
func TestWithoutReplicas(t *testing.T) {
	for _, method := range []string{"GET", "POST", "PUT"} {
		answer := call(t, method, startHAProxy(t, deployments, freeAddr(t), freeAddr(t), freeAddr(t)))
		if answer.status != http.StatusServiceUnavailable || answer.header.Get("Retry-After") != "1" {
			t.Errorf("HAProxy answers a %s with status %d, header %v", method, answer.status, answer.header)
		}
		if err := answer.isProblem("UNAVAILABLE"); err != nil {
			t.Errorf("HAProxy answers a %s: %v", method, err)
		}
	}
}

// isProblem returns nil where an answer is a problem as the server itself answers with.
func (a answer) isProblem(code string) error {
	var p struct {
		Type, Title, Detail, Code string
		Status                    int
		RequestID                 string `json:"request_id"`
		Errors                    []struct{ Field, Detail string }
	}
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return fmt.Errorf("%w: %s", err, a.body)
	}
	if p.Code != code || p.Type != "urn:portmaster:problem:"+code || p.Status != a.status || p.Title == "" || p.Detail == "" ||
		p.RequestID == "" || p.RequestID != a.header.Get("X-Request-ID") || a.header.Get("Content-Type") != "application/problem+json" {
		return fmt.Errorf("it is no %s: %v %s", code, a.header, a.body)
	}
	return nil
}

// cluster is Redis, three servers on it and HAProxy before them, by the files of deployments/.
type cluster struct {
	addr     string
	replicas [3]*processes.Process
	addrs    [3]string
	redis    string
}

func startCluster(t *testing.T) *cluster {
	c := &cluster{redis: startRedis(t, deployments, "--appendfsync", "no")} // how slow the disk is does not matter here
	for i := range c.replicas {
		c.addrs[i] = freeAddr(t)
		c.startReplica(t, i)
	}
	c.addr = startHAProxy(t, deployments, c.addrs[:]...)
	awaitReady(t, c.addr)
	return c
}

func (c *cluster) startReplica(t *testing.T, i int) {
	t.Helper()
	c.replicas[i] = startServer(t, c.addrs[i], "PORTMASTER_REDIS_URL=redis://"+c.redis, "PORTMASTER_REDIS_TIMEOUT=10s")
}

// Under the load of 64 clients, restarting the replicas in turn costs no request.
func TestRollingRestartLosesNothing(t *testing.T) {
	c := startCluster(t)
	bench := exec.Command(program(t), "bench", "--url", "http://"+c.addr, "--clients", "64", "--duration", "8s", "--output", "json")
	var result, errs bytes.Buffer
	bench.Stdout, bench.Stderr = &result, &errs
	if err := bench.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bench.Process.Kill() })
	for i, replica := range c.replicas {
		time.Sleep(500 * time.Millisecond)
		replica.End(syscall.SIGTERM)
		if code := replica.Cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("a replica ended with %d", code)
		}
		c.startReplica(t, i)
	}
	restarted := time.Now()
	if err := bench.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs.Bytes())
	}
	if time.Since(restarted) < 500*time.Millisecond {
		t.Error("the load ended before the last replica was restarted")
	}
	var load struct {
		Cycles int
		Errors map[string]int
	}
	if err := json.Unmarshal(result.Bytes(), &load); err != nil {
		t.Fatal(err)
	}
	if load.Cycles < 100 || len(load.Errors) > 0 {
		t.Errorf("%d cycles, errors %v", load.Cycles, load.Errors)
	}
}

// A replica that is killed takes with it the requests that it was working on, and no other.
func TestKillLosesOnlyWhatWasUnderWay(t *testing.T) {
	c := startCluster(t)
	var killing, killed atomic.Bool
	var before, after, lost atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{})
	const clients = 16
	for range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				afterwards, amid := killed.Load(), killing.Load()
				status := callOnce("GET", "http://"+c.addr+"/v1/services").status
				switch {
				case status == http.StatusOK && afterwards:
					after.Add(1)
				case status == http.StatusOK:
					before.Add(1)
				case afterwards:
					t.Errorf("a request that began after the kill was answered with %d", status)
				case amid: // it came while the kernel took the replica apart
				default:
					lost.Add(1)
				}
			}
		}()
	}
	time.Sleep(time.Second)
	killing.Store(true)
	c.replicas[1].End(syscall.SIGKILL)
	killed.Store(true)
	time.Sleep(time.Second)
	close(stop)
	for range clients {
		<-done
	}
	if before.Load() < clients || after.Load() < clients || lost.Load() > clients {
		t.Errorf("%d requests before the kill, %d after it, and %d lost", before.Load(), after.Load(), lost.Load())
	}
}
