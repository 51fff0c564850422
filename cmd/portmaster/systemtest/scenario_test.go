//go:build faults

package systemtest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// scenario is one Redis, three servers on it, and clients at work on one service.
type scenario struct {
	t        *testing.T
	node     *redisNode
	replicas []*replica
	service  service
	ledger   ledger
	load     *load
	others   sync.WaitGroup // who call once
}

// The ports of a scenario's service: more than its clients ever hold.
const firstPort, lastPort = 5000, 7999

// newScenario starts the Redis. It leaves its file to the kernel to write, which is all that one needs whose machine goes on,
// and waits for no disk.
func newScenario(t *testing.T, redisArgs ...string) *scenario {
	t.Helper()
	return &scenario{t: t, service: service{"default", "django"}, node: startRedis(t, redisOptions{fsync: "no", args: redisArgs})}
}

// startReplicas starts the servers, which find their Redis at an address.
func (s *scenario) startReplicas(redisAddr string) {
	s.t.Helper()
	s.replicas = startServers(s.t, 3, redisAddr)
	define(s.t, s.replicas[0].url, s.service, firstPort, lastPort)
}

// startLoad lets clients call, and waits until all kinds of calls are among theirs.
func (s *scenario) startLoad(servers []string, clients int, pause time.Duration) {
	s.t.Helper()
	s.load = startLoad(s.t, &s.ledger, loadOptions{
		servers: servers, services: []service{s.service}, clients: clients, held: 5, pause: pause,
	})
	s.ledger.awaitWrites(s.t, 1000)
}

// callOnce makes a call more, which waits for none of the clients', and does not wait for its answer. No two have the same n.
func (s *scenario) callOnce(n int) {
	s.others.Go(func() {
		c := call{
			kind: offer, service: s.service, server: s.replicas[n%len(s.replicas)].url,
			name: fmt.Sprintf("once-%d", n), secret: uuid.NewString(), start: time.Now(),
		}
		c = send(visitor(), c)
		c.end = time.Now()
		s.ledger.add(c)
	})
}

// end stops the clients and checks that nothing is lost, given twice, leaked or half-written.
func (s *scenario) end(allowed rules) figures {
	s.t.Helper()
	s.load.stop()
	s.others.Wait()
	states := readStates(s.t, s.replicas[0].url, s.service)
	found := check(s.ledger.all(), states, allowed)
	figures := s.ledger.figures()
	s.t.Log(figures.line(found))
	found.requireNone(s.t)
	checkRecords(s.t, s.node, s.service, firstPort, lastPort).requireNone(s.t)
	giveBack(s.t, s.replicas[1].url, &s.ledger, states).requireNone(s.t)
	checkRecords(s.t, s.node, s.service, firstPort, lastPort).requireNone(s.t)
	return figures
}
