package check

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

const operatorsPage = "../README.md"

// HAProxy passes paths on as they came. With the lines of the page, it serves Portmaster below a prefix, too.
func TestHAProxyPrefix(t *testing.T) {
	server := freeAddr(t)
	startServer(t, server)
	const frontend = "    default_backend replicas\n"
	dir := copied(t, deployments, "haproxy.cfg", frontend, blockOf(t, operatorsPage, "haproxy")+frontend)
	addr := startHAProxy(t, dir, server, server, server)
	awaitReady(t, addr)
	for i, prefix := range []string{"", "/portmaster"} {
		service := prefix + "/v1/services/" + []string{"one", "two"}[i]
		put := []string{`{"start":7000,"end":7099}`, `{"start":7100,"end":7199}`}[i]
		for _, step := range []struct {
			method, path, body, location string
			status                       int
		}{
			{"PUT", service, put, service, 201},
			// An instance name keeps its slashes and dots on the way.
			{"POST", service + "/ports?wait=1", `{"name":"feature/../a:b@c+d=e~f"}`, "", 201},
			{"POST", service + "/ports", `{"name":"b"}`, "", 201},
			{"GET", service + "/ports/feature%2F..%2Fa:b@c+d=e~f", "", "", 200},
			{"GET", service + "/ports?name=feature/../a:b@c%2Bd=e~f", "", "", 200},
			{"DELETE", service + "/ports/feature%2f%2E%2E%2Fa%3Ab%40c%2Bd%3De%7Ef", "", "", 204},
			{"GET", service + "/ports/b", "", "", 200},
			{"GET", service + "/ports/feature/../b", "", "", 404},
		} {
			request, err := http.NewRequest(step.method, "http://"+addr+step.path, strings.NewReader(step.body))
			if err != nil {
				t.Fatal(err)
			}
			if step.body != "" {
				request.Header.Set("Content-Type", "application/json")
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			location := response.Header.Get("Location")
			if response.StatusCode != step.status || step.location != "" && location != step.location {
				t.Errorf("%s %s: %s, Location %q\n%s", step.method, step.path, response.Status, location, body)
			}
		}
	}
}
