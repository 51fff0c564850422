package browsertest

import (
	"os/exec"
	"strings"
	"testing"
)

// Behind HAProxy, by its shipped file, the map follows what any replica does, also after its own replica was stopped.
func TestMapBehindHAProxy(t *testing.T) {
	redis := startRedis(t)
	// For a second, a replica that stops is not ready, and HAProxy leaves it out.
	replicas := []*server{startServer(t, redis, "PORTMASTER_SHUTDOWN_DELAY=1s"), startServer(t, redis, "PORTMASTER_SHUTDOWN_DELAY=1s")}
	balancer := &server{t: t, addr: freeAddr(t)}
	haproxy := exec.Command("haproxy", "-db", "-f", "../../../deployments/haproxy.cfg")
	haproxy.Env = []string{
		"HAPROXY_BIND=" + balancer.addr, "REPLICA_1=" + replicas[0].addr, "REPLICA_2=" + replicas[1].addr, "REPLICA_3=" + freeAddr(t),
	}
	balancer.process = start(t, haproxy)
	balancer.awaitReady()
	balancer.call("POST", "/v1/services", `{"name":"web","start":5000,"end":5009}`)

	p := open(t, balancer, "/ui/?service=web", "503", "net::ERR_") // while a replica stops
	p.live()
	replicas[0].call("POST", "/v1/services/web/ports", `{"name":"job-1"}`)
	replicas[1].call("POST", "/v1/services/web/ports", `{"name":"job-2"}`)
	p.claimed(5000, "job-1")
	p.claimed(5001, "job-2")

	other := replicas[1]
	if own := replicas[0]; strings.Contains(own.call("GET", "/metrics", ""), "\nportmaster_streams 1\n") {
		own.stop()
	} else {
		other.stop()
		other = own
	}
	other.call("POST", "/v1/services/web/ports", `{"name":"job-3"}`)
	p.claimed(5002, "job-3")
	p.live()
	if !strings.Contains(other.call("GET", "/metrics", ""), "\nportmaster_streams 1\n") {
		t.Error("the map does not follow the replica that is left")
	}
	p.shot("map-behind-haproxy")
}
