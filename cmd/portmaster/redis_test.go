package main

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// loginAs is a user and the password of all users, as they stand in a URL.
func loginAs(user string) string { return url.UserPassword(user, storetest.Password).String() }

// dataLogin is the login of the server at the data nodes behind a Sentinel, as it stands in a URL's query.
var dataLogin = "&username=" + storetest.User + "&password=" + url.QueryEscape(storetest.Password)

// atRedis starts the server on a Redis, and sees at the end that its log never had a password.
func atRedis(t *testing.T, url string, settings ...string) *program {
	t.Helper()
	p := startProgram(t, append(settings, "PORTMASTER_REDIS_URL="+url, "PORTMASTER_REDIS_TIMEOUT=5s", "PORTMASTER_LOG_LEVEL=debug")...)
	t.Cleanup(func() { storetest.NoPasswordIn(t, p.log.String()) })
	return p
}

// works takes a port through its whole life, in a pool of the test's choice.
func works(t *testing.T, p *program, pool string) {
	t.Helper()
	routes := "/v1/pools/" + pool + "/services"
	p.must(t, 200, "GET", "/readyz", "")
	p.must(t, 201, "POST", routes, `{"name":"django","start":5000,"end":5009}`)
	accepted := volatile[0].pattern.FindString(p.must(t, 201, "POST", routes+"/django/offers", `{"name":"web-01"}`))
	p.must(t, 201, "POST", routes+"/django/offers/"+accepted+"/accept", "")
	rejected := volatile[0].pattern.FindString(p.must(t, 201, "POST", routes+"/django/offers", `{"name":"web-02"}`))
	p.must(t, 204, "DELETE", routes+"/django/offers/"+rejected, "")
	p.must(t, 200, "GET", routes+"/django/ports", "")
	p.must(t, 200, "GET", "/v1/pools", "")
	p.must(t, 204, "DELETE", routes+"/django/ports/web-01", "")
	p.must(t, 204, "DELETE", routes+"/django", "")
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "redis.sock")
	storetest.Private(t, "--unixsocket", socket)
	works(t, atRedis(t, "unix://"+loginAs(storetest.User)+"@"+socket+"?db=3"), "default")
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	master, stopMaster, _ := storetest.Private(t)
	replica := replicaOf(t, master)
	addr := storetest.Sentinel(t, master, "requirepass of-the-sentinel", "sentinel down-after-milliseconds mymaster 1000")
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: addr, Password: "of-the-sentinel"})
	t.Cleanup(func() { sentinel.Close() })
	eventually(t, "the Sentinel knows the replica", func() bool {
		known, err := sentinel.Replicas(t.Context(), "mymaster").Result()
		return err == nil && len(known) == 1 && known[0]["master-link-status"] == "ok"
	})
	p := atRedis(t, "redis://:of-the-sentinel@"+addr+"/1?master_name=mymaster"+dataLogin)
	works(t, p, "default")
	p.must(t, 201, "POST", "/v1/services", `{"name":"kept","start":6000,"end":6009}`)
	if err := master.Admin.Wait(t.Context(), 1, patience).Err(); err != nil {
		t.Fatal(err)
	}

	stopMaster()
	eventually(t, "the replica is the master, and has all that was done", func() bool { return p.status(t, "/v1/services/kept") == 200 })
	eventually(t, "changes are taken again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		status, _ := p.call(ctx, "PUT", "/v1/services/other", `{"start":7000,"end":7009}`)
		return status == 200 || status == 201
	})
	// Single commands, as lists send them, go over other connections than scripts, which are looked after once a second.
	eventually(t, "lists are answered again", func() bool { return p.status(t, "/v1/services/kept/ports") == 200 && p.status(t, "/v1/pools") == 200 })
	works(t, p, "after")
	replica.NothingRefused(t)

	// What Sentinels do not know is not there: nothing may succeed, and nothing be taken for done.
	if err := sentinel.Remove(t.Context(), "mymaster").Err(); err != nil {
		t.Fatal(err)
	}
	replica.Admin.ClientKillByFilter(t.Context(), "USER", storetest.User)
	for range 20 {
		for _, path := range []string{"/v1/services/kept", "/v1/services/kept/ports/6000"} {
			if status, answer := p.call(t.Context(), "DELETE", path, ""); status != 503 && status != 504 {
				t.Fatalf("DELETE %s: status %d while no master is known: %s", path, status, answer)
			}
		}
	}
	p.must(t, 503, "GET", "/readyz", "")
	p.must(t, 503, "DELETE", "/v1/services/kept", "")
}

func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := storetest.Cluster(t, 2)
	p := atRedis(t, "redis+cluster://"+loginAs(storetest.User)+"@"+nodes[1].Addr)
	for _, pool := range []string{"default", "a", "b", "c"} { // in slots of both nodes
		works(t, p, pool)
	}
	for i, node := range nodes {
		if !strings.Contains(node.Admin.Info(t.Context(), "commandstats").Val(), "cmdstat_evalsha") {
			t.Errorf("node %d was not used", i)
		}
	}

	// A pool's slot moves to the other node. Meanwhile Redis runs no script that has a key to make.
	p.must(t, 201, "POST", "/v1/pools/moves/services", `{"name":"web","start":5000,"end":5009}`)
	ctx := t.Context()
	slot := nodes[0].Admin.ClusterKeySlot(ctx, "portmaster:{moves}:services").Val()
	from, to := nodes[0], nodes[1]
	if slot >= 8192 {
		from, to = to, from
	}
	setSlot := func(at storetest.Store, state string, other storetest.Store) {
		t.Helper()
		id := other.Admin.Do(ctx, "CLUSTER", "MYID").Val()
		if err := at.Admin.Do(ctx, "CLUSTER", "SETSLOT", slot, state, id).Err(); err != nil {
			t.Fatal(err)
		}
	}
	setSlot(to, "IMPORTING", from)
	setSlot(from, "MIGRATING", to)
	host, port, _ := net.SplitHostPort(to.Addr)
	for _, key := range from.Admin.ClusterGetKeysInSlot(ctx, int(slot), 100).Val() {
		if err := from.Admin.Do(ctx, "MIGRATE", host, port, key, 0, 5000, "AUTH2", "admin", storetest.Password).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if pools := p.must(t, 200, "GET", "/v1/pools", ""); !strings.Contains(pools, `{"name":"moves","services":1}`) {
		t.Errorf("the pool whose slot moves is not listed: %s", pools)
	}
	p.must(t, 503, "POST", "/v1/pools/moves/services/web/offers", `{"name":"web-01"}`)
	setSlot(to, "NODE", to)
	setSlot(from, "NODE", to)
	p.must(t, 201, "POST", "/v1/pools/moves/services/web/offers", `{"name":"web-01"}`)
	if stats := to.Admin.Info(ctx, "commandstats").Val(); !strings.Contains(stats, "cmdstat_asking") {
		t.Errorf("nobody asked the node that the slot moved to:\n%s", stats)
	}
	for _, node := range nodes {
		node.NothingRefused(t)
	}
}

// The server finds out by itself who follows a master that died.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	nodes := storetest.Cluster(t, 1)
	replica := storetest.ClusterReplica(t, nodes)
	p := atRedis(t, "redis+cluster://"+loginAs(storetest.User)+"@"+nodes[0].Addr)
	works(t, p, "before")
	nodes[0].Admin.ShutdownNoSave(t.Context())
	if err := replica.Admin.Do(t.Context(), "CLUSTER", "FAILOVER", "TAKEOVER").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "changes are taken again", func() bool {
		status, _ := p.call(t.Context(), "PUT", "/v1/services/web", `{"start":7000,"end":7009}`)
		return status == 200 || status == 201
	})
	works(t, p, "after")
	replica.NothingRefused(t)
}

// A new password in the file is used from the next connection on.
func TestPasswordFile(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(storetest.Password + "\r\n")
	p := atRedis(t, "redis://"+storetest.User+"@"+store.Addr, "PORTMASTER_REDIS_PASSWORD_FILE="+file)
	works(t, p, "default")

	ctx := t.Context()
	reconnect := func() {
		t.Helper()
		if err := store.Admin.ClientKillByFilter(ctx, "USER", storetest.User).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Admin.Do(ctx, "ACL", "SETUSER", storetest.User, "<"+storetest.Password, ">a-new-one").Err(); err != nil {
		t.Fatal(err)
	}
	works(t, p, "still-connected")
	p.must(t, 201, "PUT", "/v1/services/django", `{"start":5000,"end":5009}`)
	reconnect()
	p.must(t, 503, "DELETE", "/v1/services/django", "") // a script, and below a plain command
	p.must(t, 503, "GET", "/readyz", "")
	write("a-new-one\n")
	works(t, p, "with-the-new-one")

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	reconnect()
	p.must(t, 503, "DELETE", "/v1/services/django", "") // nothing was sent, so its outcome is known
	write("a-new-one")
	works(t, p, "with-the-file-back")
	if strings.Contains(p.log.String(), "a-new-one") {
		t.Errorf("the password is shown:\n%s", p.log)
	}
}

func TestTLS(t *testing.T) {
	store, stop, start := storetest.PrivateTLS(t)
	dir := t.TempDir()
	mine := storetest.TLSFiles{CA: store.TLS.CA, Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	use := func(files storetest.TLSFiles) {
		t.Helper()
		for from, to := range map[string]string{files.Cert: mine.Cert, files.Key: mine.Key} {
			text, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	use(*store.TLS)
	p := atRedis(t, "rediss://"+loginAs(storetest.User)+"@"+store.Addr, mine.Settings()...)
	works(t, p, "default")

	// A connection that Redis closed is not taken for one on which a call may have been made.
	stop()
	start()
	p.must(t, 201, "PUT", "/v1/services/restarted", `{"start":7000,"end":7009}`)

	// A new certificate in the files is used from the next connection on.
	use(issue(t))
	store.Admin.ClientKillByFilter(t.Context(), "USER", storetest.User)
	p.must(t, 503, "GET", "/readyz", "")
	use(*store.TLS)
	works(t, p, "certificate-is-back")
}

func TestSentinelTLS(t *testing.T) {
	store, _, _ := storetest.PrivateTLS(t)
	url := "rediss://" + storetest.Sentinel(t, store) + "?master_name=mymaster" + dataLogin
	works(t, atRedis(t, url, store.TLS.Settings()...), "default")
}

func TestClusterTLS(t *testing.T) {
	t.Parallel()
	nodes := storetest.ClusterTLS(t, 1)
	works(t, atRedis(t, "rediss+cluster://"+loginAs(storetest.User)+"@"+nodes[0].Addr, nodes[0].TLS.Settings()...), "default")
}
