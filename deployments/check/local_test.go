package check

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// all is what runs after make up.
const all = "1 haproxy 3 portmaster 1 redis-server"

// TestLocal has the script behind make up fail in the middle: it ends what it started, and leaves what ran before.
func TestLocal(t *testing.T) {
	for _, test := range []struct {
		name, commands string
		says           []string // in that order
	}{
		{"wrong ports", `
			PORT=abc up; PORT=0 up; PORT=65533 up; PORT=08080 up; REDIS_PORT=6379x up; REDIS_PORT=8083 up
			running; ls "$STATE"; up; running`,
			[]string{
				"PORT=abc must be a port, 1 to 65532\nfailed", "PORT=0 must", "PORT=65533 must", "PORT=08080 must",
				"REDIS_PORT=6379x must be a port, 1 to 65535", "REDIS_PORT=8083 is one of the four ports from PORT=8080 on",
				"running:\n", "No such file", "url    http://127.0.0.1:8080", "running: " + all,
			}},
		{"a port is taken", `
			serve 8083; up; running; end; up; running`,
			[]string{"port 8083, for portmaster-3, is taken", "failed", "running: 1 portmaster\n", "url ", "running: " + all}},
		{"a replica died, and cannot come back", `
			up; kill -9 "$(cut -d ' ' -f 1 "$STATE/portmaster-2.pid")"
			serve 8082; up; running; end
			PROGRAM=/bin/false up; running
			up; running; up`,
			[]string{
				"url ", "port 8082, for portmaster-2, is taken", "failed", "running: " + all, // the stranger is one of the three
				"portmaster-2 does not run: see ", "failed", "running: 1 haproxy 2 portmaster 1 redis-server\n",
				"Started again: portmaster-2\nurl ", "running: " + all, "It runs already.",
			}},
		{"events are followed", `
			up; curl -sN localhost:8080/v1/events >events || echo "curl failed with $?" & followed=$!
			until grep -q ready events; do sleep 0.1; done
			down; running; wait $followed; echo followed to the end`,
			[]string{"url ", "running:\n", "followed to the end"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			output := apart(t, test.commands)
			rest := output
			if strings.Contains(output, "curl failed") {
				t.Errorf("a stream of events was cut off:\n%s", output)
			}
			for _, part := range test.says {
				_, after, ok := strings.Cut(rest, part)
				if !ok {
					t.Fatalf("it does not say %q, or not in its place:\n%s", part, output)
				}
				rest = after
			}
		})
	}
}

// apart runs commands in a network of their own, where all ports are free, and among processes of their own, of which none
// outlives the shell, nor the shell this test.
func apart(t *testing.T, commands string) (output string) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv(requireRedis) != "" {
			t.Fatal("only root may make a network")
		}
		t.Skip("only root may make a network: make up is not tried")
	}
	redisServer.path(t)
	haproxy.path(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", fmt.Sprintf(`
		mount --make-rprivate / && mount -t proc proc /proc && ip link set lo up || exit
		export PROGRAM='%[1]s' STATE="$PWD/state"
		up() { '%[2]s' up || echo failed; }
		down() { '%[2]s' down || echo failed; }
		running() { echo running: $(cat /proc/[0-9]*/comm | grep -xE 'portmaster|redis-server|haproxy' | sort | uniq -c); }
		serve() { # a stranger on a port
			PORTMASTER_HTTP_ADDR="127.0.0.1:$1" "$PROGRAM" serve 2>/dev/null & stranger=$!
			until PORTMASTER_HTTP_ADDR="127.0.0.1:$1" "$PROGRAM" healthcheck >/dev/null 2>&1; do sleep 0.1; done
		}
		end() { kill -9 $stranger; wait $stranger; }
		%[3]s`, program(t), absolute(t, filepath.Join(deployments, "local.sh")), commands))
	shell.Dir = t.TempDir()
	shell.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	runtime.LockOSThread() // the signal comes when the thread that started the shell ends
	defer runtime.UnlockOSThread()
	out, _ := shell.CombinedOutput()
	return string(out)
}
