//go:build faults

package systemtest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// redisOptions says how a node of Redis differs from one that syncs every write to the disk.
type redisOptions struct {
	name      string   // in the test's log; empty: redis and its port
	addr      string   // empty: a free port on loopback
	namespace string   // of the network; empty: the machine's own
	fsync     string   // appendfsync; empty: always
	args      []string // further settings, such as --replicaof HOST PORT
	env       []string // all of its environment; nil: the test's own
}

// redisNode is a redis-server with an append-only file, which outlives its runs.
type redisNode struct {
	*process
	addr   string
	dir    string        // its data
	client *redis.Client // for the test itself: it fails fast and repeats nothing
}

// startRedis starts a node and waits until it answers.
func startRedis(t testing.TB, o redisOptions) *redisNode {
	t.Helper()
	if o.addr == "" {
		o.addr = freeAddr(t)
	}
	if o.fsync == "" {
		o.fsync = "always"
	}
	host, port, err := net.SplitHostPort(o.addr)
	if err != nil {
		t.Fatal(err)
	}
	if o.name == "" {
		o.name = "redis-" + port
	}
	dir := t.TempDir()
	args := append([]string{"redis-server", "--bind", host, "--port", port, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", o.fsync}, o.args...)
	n := &redisNode{addr: o.addr, dir: dir, client: adminClient(t, o.addr)}
	n.process = startProcess(t, command{name: o.name, namespace: o.namespace, args: args, env: o.env})
	n.awaitAnswer()
	return n
}

// restart runs a node that ended again, on the same address with the same data, and waits until it answers.
func (n *redisNode) restart() {
	n.t.Helper()
	n.start()
	n.awaitAnswer()
}

// backup writes a snapshot, as deployments/README.md says, and returns it.
func (n *redisNode) backup() []byte {
	n.t.Helper()
	if err := n.client.Save(n.t.Context()).Err(); err != nil {
		n.t.Fatal(err)
	}
	snapshot, err := os.ReadFile(filepath.Join(n.dir, "dump.rdb"))
	if err != nil {
		n.t.Fatal(err)
	}
	return snapshot
}

// restore ends the node and starts it again with what it had when a snapshot was made.
func (n *redisNode) restore(snapshot []byte) {
	n.t.Helper()
	n.kill()
	files := filepath.Join(n.dir, "appendonlydir")
	if err := errors.Join(
		os.RemoveAll(files),
		os.Mkdir(files, 0o700),
		os.WriteFile(filepath.Join(files, "appendonly.aof.1.base.rdb"), snapshot, 0o600),
		os.WriteFile(filepath.Join(files, "appendonly.aof.manifest"), []byte("file appendonly.aof.1.base.rdb seq 1 type b\n"), 0o600),
	); err != nil {
		n.t.Fatal(err)
	}
	n.restart()
}

// awaitAnswer waits until the node has loaded its data and answers.
func (n *redisNode) awaitAnswer() {
	n.t.Helper()
	n.await("it answers", func() bool { return n.client.Ping(n.t.Context()).Err() == nil })
}

// adminClient returns a client of one node that fails fast and repeats nothing.
func adminClient(t testing.TB, addr string) *redis.Client {
	logging.Disable() // a Redis that a test stops is no news
	client := redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: time.Second, ReadTimeout: time.Second, WriteTimeout: time.Second,
	})
	t.Cleanup(func() { client.Close() })
	return client
}
