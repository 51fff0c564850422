// Package storetest gives tests the stores that the allocator works on: miniredis inside the process, and a real Redis
// where redis-server is installed.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// RequireRedis is the variable that makes a missing redis-server an error, for places where every part has to be there.
const RequireRedis = "PORTMASTER_TEST_REQUIRE_REDIS"

// Store is one store for one test.
type Store struct {
	Name   string
	Addr   string
	Client *redis.Client
	Mini   *miniredis.Miniredis // nil where the store is a real Redis
	Prefix string               // of the test's keys: no other test has it
}

// server is the real Redis of this test process; nil where there is none.
var server *redisServer

// Main runs the tests of a package with a Redis of their own, and ends it after them.
func Main(m *testing.M) {
	logging.Disable() // a Redis that a test stops is no news
	code := func() int {
		var err error
		server, err = startRedis()
		if errors.Is(err, exec.ErrNotFound) {
			if os.Getenv(RequireRedis) != "" {
				fmt.Fprintf(os.Stderr, "%s is set, and redis-server is not on the PATH\n", RequireRedis)
				return 1
			}
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if server != nil {
			defer server.remove()
		}
		return m.Run()
	}()
	os.Exit(code)
}

// Stores names the stores that tests run on, in one line.
func Stores() string {
	if server == nil {
		return "miniredis only (redis-server is not on the PATH)"
	}
	return "miniredis and " + server.version
}

// Each runs a test on every store.
func Each(t *testing.T, run func(t *testing.T, store Store)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) { run(t, Mini(t)) })
	t.Run("redis", func(t *testing.T) { run(t, Redis(t)) })
}

// Mini returns a miniredis of the test's own. Its TTLs move by FastForward only.
func Mini(t testing.TB) Store {
	t.Helper()
	mini := miniredis.NewMiniRedis()
	if err := mini.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mini.Close)
	return Store{Name: "miniredis", Addr: mini.Addr(), Client: connect(t, mini.Addr()), Mini: mini, Prefix: "portmaster"}
}

// Redis returns the real Redis of the process, with a prefix for the test's keys. It skips the test, and says so, where
// there is none.
func Redis(t testing.TB) Store {
	t.Helper()
	if server == nil {
		t.Skip("redis-server is not on the PATH: not run on a real Redis")
	}
	store := Store{Name: "redis", Addr: server.addr, Client: connect(t, server.addr)}
	id, err := store.Client.Incr(context.Background(), "storetest").Result()
	if err != nil {
		t.Fatal(err)
	}
	store.Prefix = fmt.Sprintf("test%d", id)
	return store
}

// Private returns a real Redis of the test's own, which it may stop, block or fill. It skips the test, and says so, where
// there is none. The server is on store.Addr; stop ends it, and start brings it back there with what it held.
func Private(t testing.TB, args ...string) (store Store, stop, start func()) {
	t.Helper()
	if server == nil {
		t.Skip("redis-server is not on the PATH: not run on a real Redis")
	}
	own, err := startRedis(args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.remove() })
	stop = own.end
	start = func() {
		t.Helper()
		if err := own.run(); err != nil {
			t.Fatal(err)
		}
	}
	return Store{Name: "redis", Addr: own.addr, Client: connect(t, own.addr), Prefix: "portmaster"}, stop, start
}

// connect returns a client as the server makes them: it fails fast and repeats nothing.
func connect(t testing.TB, addr string) *redis.Client {
	client := redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DialTimeout: time.Second,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

// redisServer is a redis-server process with an append-only file in a temporary folder.
type redisServer struct {
	addr, dir, version string
	args               []string
	process            *os.Process
	exited             chan struct{}
}

func startRedis(args ...string) (*redisServer, error) {
	out, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "portmaster-redis-")
	if err != nil {
		return nil, err
	}
	s := &redisServer{dir: dir, args: args, version: "redis " + field(string(out), "v=")}
	// The port found free may be taken before the server has it: then another is tried.
	for range 5 {
		if s.addr, err = freeAddr(); err == nil {
			if err = s.run(); err == nil {
				return s, nil
			}
		}
	}
	os.RemoveAll(dir)
	return nil, err
}

// run starts the process and waits until it answers. The kernel ends it with the test process, however that ends.
func (s *redisServer) run() error {
	host, port, _ := net.SplitHostPort(s.addr)
	// Without fsync no write to the file is ever put off: it has all that was answered, whenever the process is killed.
	args := append([]string{"--bind", host, "--port", port, "--dir", s.dir, "--logfile", filepath.Join(s.dir, "redis.log"),
		"--save", "", "--appendonly", "yes", "--appendfsync", "no", "--enable-debug-command", "local"}, s.args...)
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.exited = make(chan struct{})
	go func(exited chan struct{}) {
		runtime.LockOSThread() // the signal comes when the thread that started the process ends
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(exited)
	}(s.exited)
	if err := <-started; err != nil {
		return err
	}
	s.process = cmd.Process
	client := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1, DialerRetries: 1})
	defer client.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.exited:
			log, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
			return fmt.Errorf("redis-server ended at once: %s", log)
		default:
		}
		if client.Ping(context.Background()).Err() == nil {
			return nil
		}
	}
	s.end()
	return errors.New("redis-server did not answer within 10 s")
}

func (s *redisServer) end() {
	s.process.Kill()
	<-s.exited
}

func (s *redisServer) remove() {
	s.end()
	os.RemoveAll(s.dir)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func field(line, prefix string) string {
	for word := range strings.FieldsSeq(line) {
		if value, ok := strings.CutPrefix(word, prefix); ok {
			return value
		}
	}
	return "of unknown version"
}
