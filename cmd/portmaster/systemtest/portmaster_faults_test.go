//go:build faults

package systemtest

import (
	"fmt"
	"testing"
)

// runInstead lets a server that ended go on as another program.
func (r *replica) runInstead(program string) {
	r.t.Helper()
	r.command.args[0] = program
	r.restart()
}

// startServers starts servers on one Redis, and waits until they are ready.
func startServers(t testing.TB, n int, redisAddr string) (replicas []*replica) {
	t.Helper()
	for i := range n {
		replicas = append(replicas, startPortmaster(t, fmt.Sprintf("portmaster-%d", i+1), "PORTMASTER_REDIS_URL=redis://"+redisAddr))
	}
	for _, r := range replicas {
		r.awaitReady()
	}
	return replicas
}

// restart runs a server that ended again, at the same address, and waits until it is ready.
func (r *replica) restart() {
	r.t.Helper()
	r.start()
	r.awaitReady()
}

// urls returns where servers are.
func urls(replicas []*replica) (urls []string) {
	for _, r := range replicas {
		urls = append(urls, r.url)
	}
	return urls
}
