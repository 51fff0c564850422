package check

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portmaster/allocator/storetest/processes"
)

// scrapeConfig is what the page of the API has Prometheus read, but for the address of the server, the refresh and the path below /v1.
func scrapeConfig(t *testing.T, server, path string) (file string) {
	t.Helper()
	const shown = "127.0.0.1:8080/v1/services/ci/targets?"
	block := regexp.MustCompile("(?s)\n```yaml prometheus\n(.*?)```\n").FindStringSubmatch(read(t, repository+"/handlers/README.md"))
	if block == nil || !strings.Contains(block[1], shown) || !strings.Contains(block[1], "refresh_interval: 30s") {
		t.Fatalf("the page of the API does not show how Prometheus finds its targets: %q", block)
	}
	file = filepath.Join(t.TempDir(), "prometheus.yaml")
	write(t, file, strings.NewReplacer(shown, server+"/v1"+path+"/targets?", "refresh_interval: 30s", "refresh_interval: 1s").Replace(block[1]))
	return file
}

// TestPrometheusFindsTargets runs Prometheus as the page says, on a service and on a pool. An allocation is a target until it is
// released. (Prometheus itself waits up to ten seconds before it uses what it has read.)
func TestPrometheusFindsTargets(t *testing.T) {
	server := freeAddr(t)
	startServer(t, server)
	post(t, server, "/v1/services", `{"name":"ci","start":7000,"end":7009}`)
	var all []string
	for _, path := range []string{"/services/ci", ""} {
		file := scrapeConfig(t, server, path)
		if output, err := promtool.run(t, filepath.Dir(file), "check", "config", file); err != nil {
			t.Fatal(err, output)
		}
		addr := freeAddr(t)
		all = append(all, addr)
		processes.Run(t, exec.Command(prometheusServer.path(t), "--config.file="+file, "--storage.tsdb.path="+t.TempDir(), "--web.listen-address="+addr))
		awaitListener(t, addr)
	}
	awaitTargets(t, all)
	post(t, server, "/v1/services/ci/ports", `[{"name":"job-1"},{"name":"farm","count":2}]`)
	awaitTargets(t, all, "127.0.0.1:7000 farm default ci", "127.0.0.1:7002 job-1 default ci")
	release(t, server, "/v1/services/ci/ports/farm")
	awaitTargets(t, all, "127.0.0.1:7002 job-1 default ci")
}

// release releases an allocation.
func release(t *testing.T, addr, path string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "DELETE", "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		t.Fatalf("DELETE %s: status %d", path, response.StatusCode)
	}
}

// awaitTargets waits until each Prometheus has these targets: the address, the label that the page makes of the name, and what was discovered.
func awaitTargets(t *testing.T, prometheus []string, want ...string) {
	t.Helper()
	for _, addr := range prometheus {
		eventually(t, fmt.Sprintf("Prometheus has the targets %q", want), func() bool {
			got, ready := targetsOf(t, addr)
			return ready && slices.Equal(got, want)
		})
	}
}

// targetsOf returns the targets that Prometheus has. ready is false before it has started.
func targetsOf(t *testing.T, prometheus string) (all []string, ready bool) {
	t.Helper()
	response, err := http.Get("http://" + prometheus + "/api/v1/targets?state=active")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Data struct {
			ActiveTargets []struct{ DiscoveredLabels, Labels map[string]string }
		}
	}
	if response.StatusCode != http.StatusOK || json.NewDecoder(response.Body).Decode(&answer) != nil {
		return nil, false
	}
	for _, target := range answer.Data.ActiveTargets {
		found := target.DiscoveredLabels
		all = append(all, fmt.Sprint(found["__address__"], " ", target.Labels["name"], " ", found["__meta_portmaster_pool"], " ", found["__meta_portmaster_service"]))
	}
	slices.Sort(all)
	return all, true
}
