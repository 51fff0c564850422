package check

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"portmaster/allocator/storetest/processes"
)

// requireRedis is the variable that makes a missing part an error, as in the tests of the server.
const requireRedis = "PORTMASTER_TEST_REQUIRE_REDIS"

// built is the folder with the program, which the first test that needs it builds.
var built struct {
	once sync.Once
	dir  string
	out  []byte
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(code)
}

// version is what the build of the program is told.
const version = "v1.2.3-4-gabcdef0"

// program returns the path of the program, built by the last RUN of the Dockerfile's first stage.
func program(t *testing.T) string {
	t.Helper()
	build := instructions(t, deployments)["RUN"]
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "portmaster-check-"); built.err != nil {
			return
		}
		cmd := exec.Command("sh", "-c", strings.Replace(build, "-o /portmaster ", `-o "$OUT/portmaster" `, 1))
		cmd.Dir = repository
		cmd.Env = append(os.Environ(), "OUT="+built.dir, "VERSION="+version, "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH)
		built.out, built.err = cmd.CombinedOutput()
	})
	if built.err != nil {
		t.Fatalf("%s: %v: %s", build, built.err, built.out)
	}
	return filepath.Join(built.dir, "portmaster")
}

// freeAddr returns an address of this machine on which nothing listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := processes.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// startServer starts portmaster serve on an address, and waits until it is ready.
func startServer(t *testing.T, addr string, settings ...string) *processes.Process {
	t.Helper()
	cmd := exec.Command(program(t), "serve")
	cmd.Env = append([]string{"PORTMASTER_HTTP_ADDR=" + addr, "PORTMASTER_LOG_LEVEL=warn"}, settings...)
	p := processes.Run(t, cmd)
	awaitReady(t, addr)
	return p
}

func awaitReady(t *testing.T, addr string) {
	t.Helper()
	eventually(t, addr+" is ready", func() bool {
		response, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// startRedis starts Redis by redis.conf, but for the address, the folder and the arguments, and waits until it listens.
func startRedis(t *testing.T, dir string, args ...string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	args = append([]string{filepath.Join(dir, "redis/redis.conf"), "--bind", host, "--port", port, "--dir", t.TempDir()}, args...)
	processes.Run(t, exec.Command(redisServer.path(t), args...))
	awaitListener(t, addr)
	return addr
}

func awaitListener(t *testing.T, addr string) {
	t.Helper()
	eventually(t, "something listens on "+addr, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	processes.Eventually(t, patience, what, ok)
}
