package storetest

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest/processes"
)

// Cluster returns the nodes of a Redis Cluster of the test's own, none with a replica. The first has the first slots. Several
// nodes are not run over TLS: each has an authority of its own, and would not know the others.
func Cluster(t testing.TB, size int) (nodes []Store) {
	t.Helper()
	by := usual()
	if by == overTLS && size > 1 {
		by = users
	}
	return cluster(t, by, size)
}

// ClusterTLS is Cluster, over TLS in any case.
func ClusterTLS(t testing.TB, size int) (nodes []Store) {
	t.Helper()
	return cluster(t, overTLS, size)
}

func cluster(t testing.TB, by access, size int) (nodes []Store) {
	t.Helper()
	needsRedis(t)
	if server.old() {
		t.Skip("a Redis 6 has no choice of the port that its Cluster uses: not run on a Cluster")
	}
	for i := range size {
		nodes = addNode(t, by, nodes)
		if err := nodes[i].Admin.ClusterAddSlotsRange(t.Context(), 16384*i/size, 16384*(i+1)/size-1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	processes.Eventually(t, 20*time.Second, "the nodes of the Cluster know each other", func() bool {
		return !slices.ContainsFunc(nodes, func(node Store) bool {
			info := node.Admin.ClusterInfo(t.Context()).Val()
			return !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", size))
		})
	})
	return nodes
}

// ClusterClient returns a client of a Cluster as the server has it.
func ClusterClient(t testing.TB, nodes []Store) *redis.ClusterClient {
	t.Helper()
	options := nodes[0].Options()
	var addrs []string
	for _, node := range nodes {
		addrs = append(addrs, node.Addr)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, Username: options.Username, Password: options.Password, TLSConfig: options.TLSConfig, Dialer: options.Dialer,
		Protocol: 2, MaxRetries: -1, MaxRedirects: 3, DialerRetries: 1, ContextTimeoutEnabled: true, DialTimeout: time.Second,
		DisableIdentity: true, DisableRoutingPolicies: true,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

// EndMaster ends a master of a Cluster that has none of some keys. The others serve on.
func EndMaster(t testing.TB, client *redis.ClusterClient, nodes []Store, keys ...string) (ended Store) {
	t.Helper()
	spared := map[string]bool{}
	for _, key := range keys {
		master, err := client.MasterForKey(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		spared[master.Options().Addr] = true
	}
	for _, node := range nodes {
		if err := node.Admin.ConfigSet(t.Context(), "cluster-require-full-coverage", "no").Err(); err != nil {
			t.Fatal(err)
		}
		if !spared[node.Addr] {
			ended = node
		}
	}
	ended.Admin.ShutdownNoSave(t.Context())
	return ended
}

// ClusterReplica returns a further node of a Cluster, which is a replica of the first and has all that this one has.
func ClusterReplica(t testing.TB, nodes []Store) Store {
	t.Helper()
	nodes = addNode(t, usual(), nodes, "--masteruser", "replica", "--masterauth", Password)
	replica := nodes[len(nodes)-1]
	id := nodes[0].Admin.Do(t.Context(), "CLUSTER", "MYID").Val()
	processes.Eventually(t, 20*time.Second, "the replica may follow", func() bool {
		return replica.Admin.Do(t.Context(), "CLUSTER", "REPLICATE", id).Err() == nil // else it does not know that node yet
	})
	processes.Eventually(t, 20*time.Second, "the replica follows, and is known", func() bool {
		known := nodes[0].Admin.Do(t.Context(), "CLUSTER", "SLOTS").String() // what a client asks for
		return strings.Contains(replica.Admin.Info(t.Context(), "replication").Val(), "master_link_status:up") &&
			strings.Contains(known, replica.Addr[strings.LastIndex(replica.Addr, ":")+1:])
	})
	return replica
}

// addNode starts a node that has no slots, and has the first meet it.
func addNode(t testing.TB, by access, nodes []Store, args ...string) []Store {
	t.Helper()
	bus, err := processes.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, busPort, _ := net.SplitHostPort(bus)
	args = append(args, "--cluster-enabled", "yes", "--cluster-port", busPort, "--repl-ping-replica-period", "1")
	if by == overTLS {
		args = append(args, "--tls-cluster", "yes") // else a node names a port to its clients that it does not have
	}
	node, _, _ := private(t, by, args...)
	nodes = append(nodes, node)
	host, port, _ := net.SplitHostPort(node.Addr)
	if err := nodes[0].Admin.Do(t.Context(), "CLUSTER", "MEET", host, port, busPort).Err(); err != nil {
		t.Fatal(err)
	}
	return nodes
}
