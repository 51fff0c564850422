// Package storetest gives tests the stores that the allocator works on: miniredis inside the process, and a real Redis
// where redis-server or valkey-server is installed. The real one, but for a Redis 6, lets the server in as the user of
// deployments/redis/users.acl and no other; with PORTMASTER_TEST_TLS=1 also over TLS only, and with a client certificate.
package storetest

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

const (
	// RequireRedis is the variable that makes a missing redis-server an error, for places where every part has to be there.
	RequireRedis = "PORTMASTER_TEST_REQUIRE_REDIS"
	// OverTLS is the variable that has every real Redis speak TLS only.
	OverTLS = "PORTMASTER_TEST_TLS"
)

const (
	// User is who the server is to a real Redis.
	User = "portmaster"
	// Password opens every user of a real Redis. It has what a URL must escape.
	Password = "p@ss/w:rd%-of-tests"
	admin    = "admin" // who may do everything
)

// Store is one store for one test.
type Store struct {
	Name   string
	Addr   string
	Client *redis.Client        // as the server has it
	Admin  *redis.Client        // for what only tests do: it may do everything
	Mini   *miniredis.Miniredis // nil where the store is a real Redis
	Clock  *Clock               // nil where the store's time is not the test's to set
	Prefix string               // of the test's keys: no other test has it
	TLS    *TLSFiles            // nil where the store does not speak TLS

	options *redis.Options // of Client
}

// server is the real Redis of this test process; nil where there is none.
var server *redisServer

// Main runs the tests of a package with a Redis of their own, and ends the process after them.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run runs the tests of a package with a Redis of their own, and returns the exit code.
func Run(m *testing.M) (code int) {
	logging.Disable()       // a Redis that a test stops is no news
	debug.SetGCPercent(400) // miniredis makes an interpreter for each script: the collector took a third of the time
	var err error
	server, err = startRedis(usual(), nil)
	if errors.Is(err, exec.ErrNotFound) {
		if os.Getenv(RequireRedis) != "" {
			fmt.Fprintf(os.Stderr, "%s is set, and neither redis-server nor valkey-server is on the PATH\n", RequireRedis)
			return 1
		}
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if server != nil {
		defer server.remove()
	}
	waitTogether()
	return m.Run()
}

// waitTogether lets more tests that call Parallel run at a time than there are processors, unless the command line says how many:
// mostly they wait.
func waitTogether() {
	const most = "4"
	given := false
	flag.Parse()
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", most)
	}
}

// usual is how a real Redis is to be reached where a test does not care.
func usual() access {
	if os.Getenv(OverTLS) != "" {
		return overTLS
	}
	return users
}

// Stores names the stores that tests run on, in one line.
func Stores() string {
	switch {
	case server == nil:
		return "miniredis only (redis-server is not on the PATH)"
	case server.tls != nil:
		return "miniredis and " + server.version + " over TLS"
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
	options := optionsOf(mini.Addr())
	client := connect(t, options)
	return Store{Name: "miniredis", Addr: mini.Addr(), Client: client, Admin: client, Mini: mini, Prefix: "portmaster", options: options}
}

// Redis returns the real Redis of the process, with a prefix for the test's keys. It skips the test, and says so, where
// there is none.
func Redis(t testing.TB) Store {
	t.Helper()
	needsRedis(t)
	store := server.store(t)
	id, err := store.Admin.Incr(context.Background(), "storetest").Result()
	if err != nil {
		t.Fatal(err)
	}
	store.Prefix = fmt.Sprintf("portmaster:test%d", id)
	return store
}

// Private returns a real Redis of the test's own, which it may stop, block or fill. It skips the test, and says so, where
// there is none. The server is on store.Addr; stop ends it, and start brings it back there with what it held.
func Private(t testing.TB, args ...string) (store Store, stop, start func()) {
	t.Helper()
	return private(t, usual(), args...)
}

// Clocked returns a real Redis of the test's own, whose clock stands still at a time until the test sets it. It skips the test, and
// says so, where there is no Redis, or no C compiler.
func Clocked(t testing.TB, at time.Time) Store {
	t.Helper()
	needsRedis(t)
	clock := NewClock(t)
	clock.Stop(at)
	own, err := startRedis(usual(), clock.Env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.remove)
	store := own.store(t)
	store.Clock = clock
	return store
}

// PrivateTLS is Private, over TLS in any case.
func PrivateTLS(t testing.TB, args ...string) (store Store, stop, start func()) {
	t.Helper()
	return private(t, overTLS, args...)
}

// Open returns a Redis of the test's own as it is where nobody changed its settings: all may do everything.
func Open(t testing.TB, args ...string) Store {
	t.Helper()
	store, _, _ := private(t, open, args...)
	return store
}

func private(t testing.TB, by access, args ...string) (store Store, stop, start func()) {
	t.Helper()
	needsRedis(t)
	own, err := startRedis(by, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.remove)
	start = func() {
		t.Helper()
		if err := own.run(); err != nil {
			t.Fatal(err)
		}
	}
	return own.store(t), own.end, start
}

func needsRedis(t testing.TB) {
	t.Helper()
	if server == nil {
		t.Skip("redis-server is not on the PATH: not run on a real Redis")
	}
}

// Settings returns the variables, NAME=value, of a server that is to work on the store.
func (s Store) Settings() []string {
	location := url.URL{Scheme: "redis", Host: s.Addr}
	if s.options.Username != "" {
		location.User = url.UserPassword(s.options.Username, s.options.Password)
	}
	settings := []string{"PORTMASTER_KEY_PREFIX=" + s.Prefix}
	if s.TLS != nil {
		location.Scheme = "rediss"
		settings = append(settings, s.TLS.Settings()...)
	}
	return append(settings, "PORTMASTER_REDIS_URL="+location.String())
}

// Options returns the options of Client, for another client.
func (s Store) Options() *redis.Options {
	options := *s.options
	return &options
}

// Dial opens a connection to the store, on which nobody has logged in.
func (s Store) Dial() (net.Conn, error) {
	if s.TLS != nil {
		return tls.Dial("tcp", s.Addr, s.options.TLSConfig)
	}
	return net.Dial("tcp", s.Addr)
}

// optionsOf returns options as those of the server: it fails fast and repeats nothing.
func optionsOf(addr string) *redis.Options {
	return &redis.Options{
		Addr: addr, Protocol: 2, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DialTimeout: time.Second, DisableIdentity: true,
	}
}

func connect(t testing.TB, options *redis.Options) *redis.Client {
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}
