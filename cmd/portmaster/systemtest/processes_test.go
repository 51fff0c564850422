//go:build faults

package systemtest

import "testing"

// TestProcesses pauses, ends and starts processes, and looks whether it shows.
func TestProcesses(t *testing.T) {
	node := startRedis(t, redisOptions{})
	server := startPortmaster(t, "portmaster", "PORTMASTER_REDIS_URL=redis://"+node.addr, "PORTMASTER_SHUTDOWN_DELAY=100ms")
	server.awaitReady()
	define(t, server.url, service{"default", "kept"}, 5000, 5009)

	node.pause()
	eventually(t, "the server is not ready while Redis is paused", func() bool { return !server.ready() })
	node.resume()
	server.awaitReady()

	if code := server.terminate(); code != 0 || server.running() || server.ready() {
		t.Errorf("after SIGTERM: exit code %d, running %v", code, server.running())
	}
	server.restart()

	node.kill()
	eventually(t, "the server is not ready without Redis", func() bool { return !server.ready() })
	node.restart()
	server.awaitReady()
	if kept := readStates(t, server.url, service{"default", "kept"}); kept[service{"default", "kept"}].ports.Free != 10 {
		t.Errorf("after Redis came back: %+v", kept)
	}
}
