//go:build faults

package systemtest

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// slots is how many slots a Redis Cluster has.
const slots = 16384

// cluster is a Redis Cluster of shards with one master and one replica each.
type cluster struct {
	t     testing.TB
	nodes []*redisNode // the masters of the beginning, in the order of their slots, and then their replicas
}

// shard is a run of slots, both ends included, and the nodes that have them.
type shard struct {
	from, to        int
	master, replica *redisNode
}

// startCluster starts as many shards, all with as many slots, and waits until they work.
func startCluster(t testing.TB, shards int) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var buses []string
	for range 2 * shards {
		_, bus, _ := net.SplitHostPort(freeAddr(t))
		buses = append(buses, bus)
		c.nodes = append(c.nodes, startRedis(t, redisOptions{fsync: "everysec", args: []string{
			"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1500",
			"--cluster-require-full-coverage", "no", // a shard without a master is none of the others' business
			"--repl-diskless-sync-delay", "0", // a replica that comes back need not wait for a second one
			"--repl-ping-replica-period", "1", // a replica is online from the first that it got on
		}}))
	}
	for i, n := range c.nodes {
		c.do(n.client.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1))
		if i < shards {
			c.do(n.client.ClusterAddSlotsRange(t.Context(), slots*i/shards, slots*(i+1)/shards-1))
		}
		host, port, _ := net.SplitHostPort(n.addr)
		c.do(c.nodes[0].client.Do(t.Context(), "CLUSTER", "MEET", host, port, buses[i]))
	}
	for i, replica := range c.nodes[shards:] {
		eventually(t, replica.command.name+" follows its master", func() bool {
			return replica.client.ClusterReplicate(t.Context(), c.id(c.nodes[i])).Err() == nil
		})
	}
	c.awaitSettled()
	return c
}

// url is where the Cluster is.
func (c *cluster) url() string {
	others := url.Values{}
	for _, n := range c.nodes[1:] {
		others.Add("addr", n.addr)
	}
	return "redis+cluster://" + c.nodes[0].addr + "?" + others.Encode()
}

// awaitSettled waits until all nodes agree on who has which slots, and every master has a replica that follows it.
func (c *cluster) awaitSettled() {
	c.t.Helper()
	eventually(c.t, "the Cluster is settled", c.settled)
}

func (c *cluster) settled() bool {
	agreed := c.shards(c.nodes[0])
	for _, n := range c.nodes {
		state, replication := n.client.ClusterInfo(c.t.Context()).Val(), n.info("replication")
		follows := strings.Contains(replication, "state=online") || strings.Contains(replication, "master_link_status:up")
		if !strings.Contains(state, "cluster_state:ok") || !follows || agreed == nil || !slices.Equal(c.shards(n), agreed) {
			return false
		}
	}
	return true
}

// shards returns who has which slots, in their order, as a node knows it; nil where it does not, or where one has no master
// with a replica.
func (c *cluster) shards(knows *redisNode) (shards []shard) {
	listed, err := knows.client.ClusterShards(c.t.Context()).Result()
	if err != nil || len(listed) != len(c.nodes)/2 {
		return nil
	}
	for _, l := range listed {
		var s shard
		for _, n := range l.Nodes {
			switch {
			case n.Health != "online":
			case n.Role == "master":
				s.master = c.at(int(n.Port))
			default:
				s.replica = c.at(int(n.Port))
			}
		}
		if s.master == nil || s.replica == nil {
			return nil
		}
		for _, run := range l.Slots {
			s.from, s.to = int(run.Start), int(run.End)
			shards = append(shards, s)
		}
	}
	slices.SortFunc(shards, func(a, b shard) int { return a.from - b.from })
	return shards
}

// shardOf returns the run of slots that a slot is in, and who has it.
func (c *cluster) shardOf(slot int) shard {
	c.t.Helper()
	for _, s := range c.shards(c.nodes[0]) {
		if s.from <= slot && slot <= s.to {
			return s
		}
	}
	c.t.Fatalf("no master with a replica has slot %d", slot)
	return shard{}
}

// failOver makes the replica of a shard its master, as an operator does who wants to restart the master.
func (c *cluster) failOver(s shard) {
	c.t.Helper()
	c.do(s.replica.client.ClusterFailover(c.t.Context()))
	s.replica.awaitMaster()
}

// slotOf returns the slot of a pool.
func (c *cluster) slotOf(pool string) int {
	c.t.Helper()
	return c.slotOfKey("{" + pool + "}")
}

func (c *cluster) slotOfKey(key string) int {
	c.t.Helper()
	return int(answer(c, c.nodes[0].client.ClusterKeySlot(c.t.Context(), key)))
}

// poolsIn names n pools, each in a slot of its own within a run of slots.
func (c *cluster) poolsIn(from, to, n int) (pools []string) {
	c.t.Helper()
	taken := map[int]bool{}
	for i := 0; len(pools) < n; i++ {
		pool := fmt.Sprintf("pool-%d", i)
		if slot := c.slotOf(pool); from <= slot && slot <= to && !taken[slot] {
			taken[slot] = true
			pools = append(pools, pool)
		}
	}
	return pools
}

// at returns the node that listens on a port.
func (c *cluster) at(port int) *redisNode {
	return c.nodes[slices.IndexFunc(c.nodes, func(n *redisNode) bool { return strings.HasSuffix(n.addr, ":"+strconv.Itoa(port)) })]
}

// id returns the name that a node has in the Cluster.
func (c *cluster) id(n *redisNode) string {
	c.t.Helper()
	return answer(c, n.client.ClusterMyID(c.t.Context()))
}

// do fails the test where a command of its own failed.
func (c *cluster) do(command redis.Cmder) {
	c.t.Helper()
	if err := command.Err(); err != nil {
		c.t.Fatal(err)
	}
}

// answer returns what a command of the test's own was answered.
func answer[T any](c *cluster, command interface{ Result() (T, error) }) T {
	c.t.Helper()
	answer, err := command.Result()
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

// awaitMaster waits until a replica has become a master.
func (n *redisNode) awaitMaster() {
	n.t.Helper()
	n.await("it is a master", func() bool { return strings.Contains(n.info("replication"), "role:master") })
}

// info returns a section of INFO; "" where the node does not answer.
func (n *redisNode) info(section string) string { return n.client.Info(n.t.Context(), section).Val() }

// scripts returns how many scripts a node knows.
func (n *redisNode) scripts() int {
	n.t.Helper()
	return n.counts("memory", `number_of_cached_scripts:(\d+)`)
}

// refusals returns how often a node has answered with an error since it was started.
func (n *redisNode) refusals(code string) int {
	n.t.Helper()
	return n.counts("errorstats", `errorstat_`+code+`:count=(\d+)`)
}

// counts reads a number from a section of INFO; 0 where it is not there.
func (n *redisNode) counts(section, pattern string) int {
	n.t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(n.info(section))
	if found == nil {
		return 0
	}
	number, err := strconv.Atoi(found[1])
	if err != nil {
		n.t.Fatal(err)
	}
	return number
}
