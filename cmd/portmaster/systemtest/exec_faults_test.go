//go:build faults

package systemtest

import (
	"fmt"
	"os"
	"testing"
	"time"

	api "portmaster/client"
)

// serveExecOn is serveExec with a Redis.
func serveExecOn(t *testing.T, ports int) (*execServer, *redisNode) {
	t.Helper()
	node := startRedis(t, redisOptions{})
	return serveExec(t, ports, "PORTMASTER_REDIS_URL=redis://"+node.addr, "PORTMASTER_SHUTDOWN_DELAY=0s"), node
}

// execMany starts so many execs of the service ci at once, whose commands bind their port for 100 ms.
func (s *execServer) execMany(count int, flags ...string) (all []*process) {
	s.t.Helper()
	for i := range count {
		args := append(append([]string{"--name", fmt.Sprint("job-", i)}, flags...), "ci", os.Args[0], "100ms")
		all = append(all, s.execChild(fmt.Sprint("exec-", i), "bind", args...))
	}
	return all
}

// Of many execs all run, no two at once on a port: each command binds its own.
func TestExecManyOnFewPorts(t *testing.T) {
	s := serveExec(t, 10)
	all := s.execMany(50)
	for _, p := range all {
		p.ends(0)
		p.says(`^job-\d+ bound`)
	}
	s.allFree()
	if ports, _ := s.counts(); ports.Free != 10 {
		t.Errorf("there are %+v", ports)
	}
}

// The server is restarted, and killed, while execs wait and run: all of them run, and none loses its port.
func TestExecWhileTheServerRestarts(t *testing.T) {
	s, _ := serveExecOn(t, 10)
	all := s.execMany(50, "--lease", "5s")
	over := make(chan struct{})
	restarts := 0
	go func() {
		defer close(over)
		for _, p := range all {
			<-p.exited
		}
	}()
	for running := true; running; restarts++ {
		if restarts%2 == 0 {
			s.kill()
		} else {
			s.terminate()
		}
		time.Sleep(200 * time.Millisecond)
		s.process.start()
		s.awaitReady()
		select {
		case <-over:
			running = false
		case <-time.After(500 * time.Millisecond):
		}
	}
	for _, p := range all {
		p.ends(0)
		p.says(`^job-\d+ bound`)
	}
	if restarts < 3 {
		t.Errorf("the server was restarted %d times only", restarts)
	}
	s.allFree()
	t.Logf("%d restarts", restarts)
}

// Exec waits while Redis is away, and says so, both when it is gone and when it hangs. A command that runs does not notice.
func TestExecWhileRedisIsAway(t *testing.T) {
	s, node := serveExecOn(t, 2)
	for _, away := range []struct{ end, come func() }{{node.kill, node.restart}, {node.pause, node.resume}} {
		runs := s.exec("runs", "--lease", "10s", "ci", "sleep", "3")
		s.allocation()
		away.end()
		waits := s.exec("waits", "ci", "true")
		waits.says(`^portmaster: waiting for the server: (UNAVAILABLE|OUTCOME_UNKNOWN): `)
		time.Sleep(time.Second)
		if !waits.running() || !runs.running() {
			t.Fatal("an exec ended while Redis was away")
		}
		away.come()
		waits.ends(0)
		runs.ends(0)
		s.allFree()
	}
}

// A call that is on the waitlist when Redis goes keeps waiting.
func TestExecOnTheWaitlistWhileRedisIsAway(t *testing.T) {
	s, node := serveExecOn(t, 1)
	held, err := s.client.Claim(t.Context(), "ci", api.Request{Name: "holder"}, api.Wait{})
	if err != nil {
		t.Fatal(err)
	}
	waits := s.exec("waits", "ci", "true")
	eventually(t, "it waits", func() bool { _, waiting := s.counts(); return waiting == 1 })
	node.kill()
	time.Sleep(time.Second)
	node.restart()
	if err := s.client.Release(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	waits.ends(0)
	s.allFree()
}
