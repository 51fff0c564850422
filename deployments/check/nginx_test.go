package check

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestNginxConfig(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		_, err := nginx.run(t, dir, "-t", "-p", t.TempDir(), "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr", "-g", "pid nginx.pid;")
		return err
	},
		mutant{"nginx.conf", "proxy_next_upstream off;", "proxy_next_upstream none;", `invalid value "none"`},
		mutant{"nginx.conf", "keepalive_timeout 30s", "keep_alive_timeout 30s", `unknown directive "keep_alive_timeout"`},
		mutant{"nginx.conf", "127.0.0.1:8082", "portmaster-2.invalid:8080", "host not found in upstream"},
	)
}

// startNginx starts nginx by nginx.conf before other replicas, and waits until it listens.
func startNginx(t *testing.T, dir string, replicas ...string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	config := read(t, filepath.Join(dir, "nginx.conf"))
	for from, to := range map[string]string{
		"listen 8080;": "listen " + addr + ";", "127.0.0.1:8081": replicas[0], "127.0.0.1:8082": replicas[1], "127.0.0.1:8083": replicas[2],
	} {
		if strings.Count(config, from) != 1 {
			t.Fatalf("nginx.conf does not have one %q", from)
		}
		config = strings.Replace(config, from, to, 1)
	}
	folder := t.TempDir()
	write(t, filepath.Join(folder, "nginx.conf"), config)
	start(t, exec.Command(nginx.path(t), "-p", folder, "-c", "nginx.conf", "-e", "stderr", "-g", "pid nginx.pid; daemon off; master_process off;"))
	awaitListener(t, addr)
	return addr
}

// No change is sent twice, whatever its method is. A request that no replica had goes to another, and a GET goes on.
func TestNginxRepeatsNoChange(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		var faults []error
		for method, times := range map[string]int64{"GET": 3, "HEAD": 3, "POST": 1, "PUT": 1, "DELETE": 1} {
			dead := deadReplicas(t, 3)
			answer := call(t, method, startNginx(t, dir, dead.addrs...))
			if n := dead.requests.Load(); n != times || answer.status != http.StatusGatewayTimeout {
				faults = append(faults, fmt.Errorf("a %s was sent %d times and answered with %d", method, n, answer.status))
			}
			if method != "HEAD" {
				faults = append(faults, answer.isProblem("OUTCOME_UNKNOWN"))
			}
			live := liveReplica(t)
			addr := startNginx(t, dir, freeAddr(t), live, live)
			for range 3 { // each replica's turn
				if answer := call(t, method, addr); answer.status != http.StatusOK {
					faults = append(faults, fmt.Errorf("a %s was answered with %d, with two replicas of three there", method, answer.status))
				}
			}
		}
		return errors.Join(faults...)
	},
		mutant{"nginx.conf", "^(PUT|DELETE)$", "^(DELETE)$", "a PUT was sent 3 times"},
		mutant{"nginx.conf", "^(PUT|DELETE)$", "^(PUT)$", "a DELETE was sent 3 times"},
		mutant{"nginx.conf", "proxy_next_upstream error timeout;", "proxy_next_upstream error timeout non_idempotent;", "a POST was sent 3 times"},
		mutant{"nginx.conf", "$upstream_connect_time ~ [0-9]", "$upstream_connect_time = never", "a PUT was sent 2 times"},
		mutant{"nginx.conf", "error_page 502 504 = @another;", "", "a DELETE was answered with 502, with two replicas of three there"},
	)
}
