package check

import (
	"net/http"
	"strings"
	"testing"
)

const operatorsPage = "../README.md"

// With the lines of the page, HAProxy serves Portmaster below a prefix, too.
func TestHAProxyPrefix(t *testing.T) {
	server := freeAddr(t)
	startServer(t, server)
	const frontend = "    default_backend replicas\n"
	dir := copied(t, deployments, "haproxy.cfg", frontend, blockOf(t, operatorsPage, "haproxy")+frontend)
	addr := startHAProxy(t, dir, server, server, server)
	awaitReady(t, addr)
	for i, prefix := range []string{"", "/portmaster"} {
		service := []string{"one", "two"}[i]
		body := strings.NewReader([]string{`{"start":7000,"end":7099}`, `{"start":7100,"end":7199}`}[i])
		request, err := http.NewRequest("PUT", "http://"+addr+prefix+"/v1/services/"+service, body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got, want := response.Header.Get("Location"), prefix+"/v1/services/"+service; response.StatusCode != 201 || got != want {
			t.Errorf("%s, Location %q, want %q", response.Status, got, want)
		}
	}
}
