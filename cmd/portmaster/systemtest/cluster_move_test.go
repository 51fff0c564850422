//go:build faults

package systemtest

import (
	"net"
	"time"
)

// slotMove is a slot that stands half on one master and half on another.
type slotMove struct {
	cluster  *cluster
	slot     int
	from, to *redisNode
}

// beginMove opens a slot at the master that is to get it, and at the one that has it.
func (c *cluster) beginMove(slot int, from, to *redisNode) *slotMove {
	c.t.Helper()
	m := &slotMove{c, slot, from, to}
	m.set(to, "IMPORTING", from)
	m.set(from, "MIGRATING", to)
	return m
}

// keys returns up to n keys that have not moved yet.
func (m *slotMove) keys(n int) []string {
	m.cluster.t.Helper()
	return answer(m.cluster, m.from.client.ClusterGetKeysInSlot(m.cluster.t.Context(), m.slot, n))
}

// migrate moves some keys.
func (m *slotMove) migrate(keys []string) {
	m.cluster.t.Helper()
	if len(keys) == 0 {
		return
	}
	host, port, _ := net.SplitHostPort(m.to.addr)
	command := []any{"MIGRATE", host, port, "", 0, patience.Milliseconds(), "KEYS"}
	for _, key := range keys {
		command = append(command, key)
	}
	m.cluster.do(m.from.client.Do(m.cluster.t.Context(), command...))
}

// end gives the slot to its new master. The other nodes hear of it by themselves.
func (m *slotMove) end() {
	m.cluster.t.Helper()
	m.set(m.to, "NODE", m.to)
	m.set(m.from, "NODE", m.to)
}

func (m *slotMove) set(at *redisNode, state string, other *redisNode) {
	m.cluster.t.Helper()
	m.cluster.do(at.client.Do(m.cluster.t.Context(), "CLUSTER", "SETSLOT", m.slot, state, m.cluster.id(other)))
}

// move moves a slot in so many steps, each with as many keys, and pauses after each.
func (c *cluster) move(slot int, from, to *redisNode, steps int, pause time.Duration) {
	c.t.Helper()
	m := c.beginMove(slot, from, to)
	all := m.keys(1 << 20)
	for step := range steps {
		m.migrate(all[len(all)*step/steps : len(all)*(step+1)/steps])
		if len(all) > 0 {
			time.Sleep(pause)
		}
	}
	m.end()
}
