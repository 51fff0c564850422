//go:build faults

package systemtest

import (
	"testing"
	"time"
)

// TestRedisKilled kills a Redis that syncs every write to the disk, and brings it back, again and again. Nothing that was
// acknowledged may be lost, and the servers come back by themselves.
func TestRedisKilled(t *testing.T) {
	const kills = 20
	node := startRedis(t, redisOptions{fsync: "always"})
	replicas := startServers(t, 3, node.addr)
	django := service{"default", "django"}
	define(t, replicas[0].url, django, 5000, 5999)
	var l ledger
	work := startLoad(t, &l, loadOptions{
		servers: urls(replicas), services: []service{django}, clients: 16, held: 20, pause: 5 * time.Millisecond,
	})

	for range kills {
		l.awaitWrites(t, 50)
		time.Sleep(200 * time.Millisecond)
		node.kill()
		time.Sleep(100 * time.Millisecond)
		node.restart()
		for _, r := range replicas {
			r.awaitReady()
		}
	}
	l.awaitWrites(t, 50)
	work.stop()

	states := readStates(t, replicas[0].url, django)
	found := check(l.all(), states, rules{})
	figures := l.figures()
	t.Log(figures.line(found))
	found.requireNone(t)
	giveBack(t, replicas[1].url, &l, states).requireNone(t)
	if figures.unavailable+figures.unknown < kills {
		t.Errorf("%d kills, and only %d calls met one", kills, figures.unavailable+figures.unknown)
	}
}
