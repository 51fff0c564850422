//go:build faults

package systemtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"
)

// sentinelGroup is a Redis with two replicas, three Sentinels that watch it, and three servers that ask them for the
// master. Each of the nine is on a host of its own.
type sentinelGroup struct {
	t         testing.TB
	lan       *lan
	nodes     []*redisNode // the first is the master at first
	sentinels []*sentinel
	servers   []*replica

	nodeHosts, serverHosts []host
}

// sentinel is a process of Sentinel, and a client of it.
type sentinel struct {
	*process
	addr   string
	client *redis.SentinelClient
}

// masterName is what the Sentinels call the group.
const masterName = "portmaster"

// startSentinelGroup starts a group, and waits until every part of it has found every other.
func startSentinelGroup(t testing.TB, durability string) *sentinelGroup {
	t.Helper()
	g := &sentinelGroup{t: t, lan: newLAN(t)}
	g.startNodes()
	g.startSentinels()
	url := "redis://" + g.sentinels[0].addr + "/0?master_name=" + masterName + "&addr=" + g.sentinels[1].addr + "&addr=" + g.sentinels[2].addr
	for i := range 3 {
		name := fmt.Sprintf("server%d", i)
		on := g.lan.addHost(name)
		g.serverHosts = append(g.serverHosts, on)
		g.servers = append(g.servers, startPortmasterIn(t, on.namespace, name,
			"PORTMASTER_AUTH=none", "PORTMASTER_HOSTS="+on.ip.String(), "PORTMASTER_HTTP_ADDR="+on.at(8080), "PORTMASTER_REDIS_URL="+url, "PORTMASTER_DURABILITY="+durability))
	}
	for _, s := range g.servers {
		s.awaitReady()
	}
	return g
}

// startNodes starts a master and its replicas. A full copy begins at once: by default it would wait for 5 s, for others
// that want one, too, and for as long changes would lack a replica.
func (g *sentinelGroup) startNodes() {
	g.t.Helper()
	for i := range 3 {
		name := fmt.Sprintf("redis%d", i)
		on := g.lan.addHost(name)
		g.nodeHosts = append(g.nodeHosts, on)
		args := []string{"--protected-mode", "no", "--repl-diskless-sync-delay", "0"}
		if i > 0 {
			args = append(args, "--replicaof", g.nodeHosts[0].ip.String(), "6379")
		}
		g.nodes = append(g.nodes, startRedis(g.t, redisOptions{
			name: name, namespace: on.namespace, addr: on.at(6379), fsync: "everysec", args: args,
		}))
	}
	g.awaitReplicas(g.nodes[0].addr)
}

// startSentinels starts the Sentinels, two of which have to agree that the master is down.
func (g *sentinelGroup) startSentinels() {
	g.t.Helper()
	for i := range 3 {
		name := fmt.Sprintf("sentinel%d", i)
		g.sentinels = append(g.sentinels, startSentinel(g.t, name, g.lan.addHost(name), g.nodeHosts[0]))
	}
	for _, s := range g.sentinels {
		s.await("it knows both replicas and the other Sentinels", func() bool {
			master, _ := s.client.Master(g.t.Context(), masterName).Result()
			return master["flags"] == "master" && master["num-slaves"] == "2" && master["num-other-sentinels"] == "2"
		})
	}
}

func startSentinel(t testing.TB, name string, on, master host) *sentinel {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sentinel.conf") // which it rewrites
	text := fmt.Sprintf(`bind %s
port 26379
protected-mode no
dir %s
sentinel monitor %[3]s %[4]s 6379 2
sentinel down-after-milliseconds %[3]s 2000
sentinel failover-timeout %[3]s 5000
`, on.ip, dir, masterName, master.ip)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &sentinel{addr: on.at(26379)}
	s.client = redis.NewSentinelClient(adminClient(t, s.addr).Options())
	t.Cleanup(func() { s.client.Close() })
	s.process = startProcess(t, command{name: name, namespace: on.namespace, args: []string{"redis-server", file, "--sentinel"}})
	s.await("it answers", func() bool { return s.client.Ping(t.Context()).Err() == nil })
	// An old master that returns becomes a replica only at the second INFO, 10 s later. No setting of the file shortens that.
	pace := redis.NewStatusCmd(t.Context(), "sentinel", "debug", "info-period", "1000", "publish-period", "1000")
	if err := s.client.Process(t.Context(), pace); err != nil {
		t.Fatal(err)
	}
	return s
}

// master returns the address of the master by the first Sentinel.
func (g *sentinelGroup) master() string {
	addr, err := g.sentinels[0].client.GetMasterAddrByName(g.t.Context(), masterName).Result()
	if err != nil || len(addr) != 2 {
		return ""
	}
	return net.JoinHostPort(addr[0], addr[1])
}

// awaitReplicas waits until all nodes but the master have a copy of it, and keep it.
func (g *sentinelGroup) awaitReplicas(master string) {
	g.t.Helper()
	for _, n := range g.nodes {
		if n.addr == master {
			continue
		}
		n.await("it is a replica of "+master, func() bool {
			info, _ := n.client.InfoMap(g.t.Context(), "replication").Result()
			says := info["Replication"]
			return says["role"] == "slave" && says["master_link_status"] == "up" &&
				net.JoinHostPort(says["master_host"], says["master_port"]) == master
		})
	}
}
