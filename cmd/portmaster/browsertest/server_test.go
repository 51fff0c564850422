package browsertest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is one that a test started, which ends with the test.
type process struct {
	cmd    *exec.Cmd
	log    *bytes.Buffer // to be read when it has ended
	exited chan struct{}
}

// start starts a command. The kernel ends it with the test process, however that ends.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: &bytes.Buffer{}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.log, p.log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal comes when the thread that started the process ends
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(p.exited)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd, p.log)
		}
	})
	return p
}

// end sends a signal to the process and waits until it has ended.
func (p *process) end(signal os.Signal) {
	p.cmd.Process.Signal(signal)
	<-p.exited
}

// freeAddr returns an address of this machine on which nothing listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// server is portmaster serve.
type server struct {
	t       *testing.T
	addr    string
	token   string // that call sends, if it is not ""
	env     []string
	process *process
}

// startServer starts a server with the settings, and waits until it is ready.
func startServer(t *testing.T, settings ...string) *server {
	t.Helper()
	addr := freeAddr(t)
	s := &server{t: t, addr: addr, env: append([]string{"PORTMASTER_HTTP_ADDR=" + addr, "PORTMASTER_SHUTDOWN_DELAY=0s"}, settings...)}
	s.start()
	return s
}

// start starts the server, again after stop.
func (s *server) start() {
	s.t.Helper()
	cmd := exec.Command(*program, "serve")
	cmd.Env = s.env
	s.process = start(s.t, cmd)
	s.awaitReady()
}

func (s *server) awaitReady() {
	s.t.Helper()
	eventually(s.t, s.addr+" is ready", func() bool {
		response, err := http.Get(s.url("/readyz"))
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// stop ends the server as an operator does.
func (s *server) stop() {
	s.t.Helper()
	s.process.end(syscall.SIGTERM)
	if code := s.process.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("the server ended with %d", code)
	}
}

func (s *server) url(path string) string { return "http://" + s.addr + path }

// call makes a call that must succeed, and returns its answer.
func (s *server) call(method, path, body string) string {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url(path), strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		s.t.Fatalf("%s %s %s: %d %s, error %v", method, path, body, response.StatusCode, answer, err)
	}
	return string(answer)
}

// stores runs a test on a server with the store inside its process, and on one with a Redis.
func stores(t *testing.T, test func(t *testing.T, settings ...string)) {
	t.Run("embedded", func(t *testing.T) { test(t) })
	t.Run("redis", func(t *testing.T) { test(t, startRedis(t)) })
}

// startRedis starts a Redis that ends with the test, and returns the setting that names it.
func startRedis(t *testing.T) (setting string) {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	start(t, exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", "", "--maxmemory-policy", "noeviction"))
	eventually(t, "redis listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return "PORTMASTER_REDIS_URL=redis://" + addr
}

// tokens is the tokens file of a server: one token for each role, whose name is also its owner.
type tokens struct {
	t                        *testing.T
	path                     string
	reader, client, operator string
}

// newTokens makes the tokens of the three roles, for all pools and services.
func newTokens(t *testing.T) *tokens {
	t.Helper()
	k := &tokens{t: t, path: filepath.Join(t.TempDir(), "tokens")}
	var lines []string
	for role, token := range map[string]*string{"reader": &k.reader, "client": &k.client, "operator": &k.operator} {
		out, err := exec.Command(*program, "token", role, "--role", role, "--scope", "*/*").Output()
		made := strings.Split(string(out), "\n")
		if err != nil || len(made) < 2 {
			t.Fatalf("portmaster token: %v: %s", err, out)
		}
		*token, lines = made[0], append(lines, made[1])
	}
	k.write(lines...)
	return k
}

// write replaces the lines of the file, which the server follows.
func (k *tokens) write(lines ...string) {
	k.t.Helper()
	if err := os.WriteFile(k.path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		k.t.Fatal(err)
	}
	if err := os.Rename(k.path+".new", k.path); err != nil {
		k.t.Fatal(err)
	}
}

// setting is the setting that gives the file to a server.
func (k *tokens) setting() string { return "PORTMASTER_AUTH_TOKENS_FILE=" + k.path }
