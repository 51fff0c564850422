//go:build faults

package faults

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

var program = flag.String("program", "", "the portmaster to test; make test-faults builds it")

// replica is a portmaster serve.
type replica struct {
	*process
	url string // http://host:port
}

// startPortmaster starts a server with the given settings (NAME=value) and no others. Where they do not say where to
// listen, it is on a free port of loopback. It does not wait for it to be ready.
func startPortmaster(t testing.TB, name string, settings ...string) *replica {
	t.Helper()
	return startPortmasterIn(t, "", name, settings...)
}

// startPortmasterIn starts a server in a network namespace.
func startPortmasterIn(t testing.TB, namespace, name string, settings ...string) *replica {
	t.Helper()
	if *program == "" {
		t.Fatal("-program names no portmaster: run make test-faults")
	}
	const where = "PORTMASTER_HTTP_ADDR="
	given := slices.IndexFunc(settings, func(s string) bool { return strings.HasPrefix(s, where) })
	if given < 0 {
		given, settings = len(settings), append(slices.Clone(settings), where+freeAddr(t))
	}
	c := command{
		name:      name,
		namespace: namespace,
		args:      []string{*program, "serve"},
		env:       append(withoutSettings(os.Environ()), settings...),
	}
	return &replica{process: startProcess(t, c), url: "http://" + strings.TrimPrefix(settings[given], where)}
}

// runInstead lets a server that ended go on as another program.
func (r *replica) runInstead(program string) {
	r.t.Helper()
	r.command.args[0] = program
	r.restart()
}

// startReplicas starts servers on one Redis, and waits until they are ready.
func startReplicas(t testing.TB, n int, redisAddr string) (replicas []*replica) {
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

// awaitReady waits until /readyz says that the server has its Redis.
func (r *replica) awaitReady() {
	r.t.Helper()
	r.await("/readyz is 200", r.ready)
}

func (r *replica) ready() bool { return ready(r.url) }

// ready reports whether /readyz is 200.
func ready(server string) bool {
	response, err := visitor().Get(server + "/readyz")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// urls returns where servers are.
func urls(replicas []*replica) (urls []string) {
	for _, r := range replicas {
		urls = append(urls, r.url)
	}
	return urls
}

func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool { return strings.HasPrefix(entry, "PORTMASTER_") })
}
