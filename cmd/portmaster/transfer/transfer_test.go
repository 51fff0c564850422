package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"portmaster/client"
	"portmaster/handlers/servertest"
)

func newClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(servertest.Start(t), client.Options{})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func export(t *testing.T, c *client.Client, pools ...string) string {
	t.Helper()
	var out bytes.Buffer
	for _, pool := range pools {
		must(t, Export(t.Context(), c, pool, &out))
	}
	return out.String()
}

// imports takes lines over, and returns the plan that it did.
func imports(t *testing.T, c *client.Client, secrets, lines string) *Plan {
	t.Helper()
	parsed, err := Parse(strings.NewReader(lines))
	must(t, err)
	plan, err := MakePlan(t.Context(), c, parsed)
	must(t, err)
	must(t, plan.Import(t.Context(), c, secrets, nil))
	return plan
}

// What each server says for itself: when it made an allocation, and the fence.
var own = regexp.MustCompile(`"(created|expires)":"[^"]*"|"fence":\d+`)

// What was exported and imported is exported by the other server, and an import that is repeated changes nothing.
func TestRoundTrip(t *testing.T) {
	from, to := newClient(t), newClient(t)
	ctx := t.Context()
	for _, pool := range []string{"default", "eu"} {
		for i, name := range []string{"web", "ci"} {
			d := client.Definition{Name: name, Description: "öl \"x\"", Start: 5000 + 100*i, End: 5099 + 100*i, Cooldown: 1500 * time.Millisecond, Pick: "name"}
			if name == "web" {
				d.Ranges, d.Start, d.End = []client.Range{{Start: 5200, End: 5209}, {Start: 5000, End: 5099}}, 0, 0
			}
			_, err := from.Pool(pool).Define(ctx, d)
			must(t, err)
		}
		_, err := from.Pool(pool).ClaimAll(ctx, "ci", []client.Request{{Name: "lasting", Labels: map[string]string{"job": "4711", "text": "<\"ö"}}, {Name: "block", Count: 7}, {Name: "leased", Lease: time.Hour}}, client.Wait{})
		must(t, err)
	}
	// What was allocated before has a longer lease than the service gives now, or none.
	_, err := from.Change(ctx, "ci", client.Change{DefaultLease: new(time.Minute), MaxLease: new(90 * time.Second)})
	must(t, err)
	secrets := filepath.Join(t.TempDir(), "secrets")
	lines := export(t, from, "default", "eu")
	plan := imports(t, to, secrets, lines)
	if len(plan.Faults) > 0 || len(plan.Define) != 4 || len(plan.Claim) != 6 {
		t.Errorf("planned %+v", plan)
	}
	if got, want := own.ReplaceAllString(export(t, to, "default", "eu"), ""), own.ReplaceAllString(lines, ""); got != want {
		t.Errorf("imported\n%s\nwant\n%s", got, want)
	}
	a, err := to.Allocation(ctx, "ci", "leased")
	must(t, err)
	if left := time.Until(a.Expires); left > time.Hour || left < 50*time.Minute {
		t.Errorf("the lease ends in %v", left)
	}
	again := imports(t, to, secrets, lines)
	if again.Present != 10 || len(again.Define)+len(again.Claim)+len(again.Faults) != 0 {
		t.Errorf("repeated, it is planned %+v", again)
	}
}

// Labels that are too long for one body are claimed in several.
func TestLongLabels(t *testing.T) {
	var lines strings.Builder
	fmt.Fprintln(&lines, `{"service":{"name":"web","start":10000,"end":19999}}`)
	labels := map[string]string{}
	for i := range 7 {
		labels[fmt.Sprint("k", i)] = strings.Repeat("x", 256)
	}
	text, err := json.Marshal(labels)
	must(t, err)
	for i := range 150 {
		fmt.Fprintf(&lines, `{"allocation":{"service":"web","name":"n%d","port":%d,"labels":%s}}`+"\n", i, 10000+i, text)
	}
	c := newClient(t)
	if plan := imports(t, c, filepath.Join(t.TempDir(), "secrets"), lines.String()); len(plan.Faults) > 0 {
		t.Errorf("faults %v", plan.Faults)
	}
	for a, err := range c.Allocations(t.Context(), "web") {
		if err != nil || !maps.Equal(a.Labels, labels) {
			t.Errorf("%s has %v, error %v", a.Name, a.Labels, err)
		}
	}
}

// An import that is interrupted, even behind a claim, goes on when it is repeated; the secrets in its file are those of the claims.
func TestInterrupted(t *testing.T) {
	const total = 5000
	var lines strings.Builder
	fmt.Fprintln(&lines, `{"service":{"name":"web","start":10000,"end":19999}}`)
	for i := range total {
		fmt.Fprintf(&lines, `{"allocation":{"service":"web","name":"n%d","port":%d}}`+"\n", i, 10000+2*i)
	}
	c, secrets := newClient(t), filepath.Join(t.TempDir(), "secrets")
	parsed, err := Parse(strings.NewReader(lines.String()))
	must(t, err)
	plan, err := MakePlan(t.Context(), c, parsed)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	err = plan.Import(ctx, c, secrets, func(done, all int) {
		if all != total {
			t.Errorf("%d of %d", done, all)
		}
		if done == 2000 {
			stop()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "after 2000 of 5000 allocations") {
		t.Errorf("interrupted: %v", err)
	}
	file, err := os.OpenFile(secrets, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteString(`{"pool":"default","ser`) // as of a machine that failed
	must(t, errors.Join(err, file.Close(), os.Chmod(secrets, 0o644)))

	began := time.Now()
	plan = imports(t, c, secrets, lines.String())
	t.Logf("%d allocations within %v", len(plan.Claim), time.Since(began))
	if plan.Present != 2001 || len(plan.Faults) > 0 {
		t.Errorf("%d are there, faults %v", plan.Present, plan.Faults)
	}
	if info, err := os.Stat(secrets); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of secrets is %v, %v", info, err)
	}
	known, err := readSecrets(secrets)
	must(t, err)
	for i := range total {
		name := fmt.Sprintf("n%d", i)
		secret := known.known[secretKey{"default", "web", name, 10000 + 2*i}]
		if i%100 == 0 {
			must(t, c.Release(t.Context(), client.Allocation{Service: "web", Name: name, Secret: secret}))
		}
		if secret == "" {
			t.Fatalf("the secret of %s is not in the file", name)
		}
	}
}

// What cannot be taken over is found before anything is written, and the rest can be.
func TestFaults(t *testing.T) {
	c := newClient(t)
	_, err := c.Define(t.Context(), client.Definition{Name: "there", Start: 5000, End: 5099})
	must(t, err)
	_, err = c.Claim(t.Context(), "there", client.Request{Name: "ann", Port: 5050}, client.Wait{})
	must(t, err)
	before := export(t, c, "default")
	ended := time.Now().Add(-time.Hour).Format(time.RFC3339)
	lines := strings.Join([]string{
		`{"service":{"name":"-a","start":6000,"end":6099}}`,                                                                     // 1
		`{"service":{"name":"big","start":6000,"end":70000}}`,                                                                   // 2
		`{"service":{"name":"over","start":5090,"end":5190}}`,                                                                   // 3
		`{"service":{"name":"there","start":5000,"end":5049}}`,                                                                  // 4
		`{"service":{"name":"cool","start":7000,"end":7099,"cooldown":-1}}`,                                                     // 5
		`{"service":{"name":"good","start":8000,"end":8099}}`,                                                                   // 6
		`{"service":{"name":"good","start":8000,"end":8098}}`,                                                                   // 7
		`{"pool":"a b","service":{"name":"web","start":9000,"end":9099}}`,                                                       // 8
		`{"allocation":{"service":"over","name":"left","port":5100}}`,                                                           // 9
		`{"allocation":{"service":"none","name":"ann","port":5050}}`,                                                            // 10
		`{"allocation":{"service":"good2","name":"x","port":8000}}`,                                                             // 11
		`{"service":{"name":"good2","start":8200,"end":8299}}`,                                                                  // 12
		`{"allocation":{"service":"good2","name":"-12","port":8200}}`,                                                           // 13
		`{"allocation":{"service":"good2","name":"low","port":8199}}`,                                                           // 14
		`{"allocation":{"service":"good2","name":"one","port":8200,"count":3}}`,                                                 // 15
		`{"allocation":{"service":"good2","name":"one","port":8210}}`,                                                           // 16
		`{"allocation":{"service":"good2","name":"two","port":8202}}`,                                                           // 17
		`{"allocation":{"service":"good2","name":"old","port":8220,"expires":"` + ended + `"}}`,                                 // 18
		`{"allocation":{"service":"good2","name":"wide","port":8250,"count":200}}`,                                              // 19
		`{"service":{"name":"text","start":9500,"end":9501,"description":"` + strings.Repeat("x", 257) + `"}}`,                  // 20
		`{"service":{"name":"several","start":9600,"end":9609,"ranges":[{"start":9600,"end":9601},{"start":9605,"end":9608}]}}`, // 21: they end elsewhere
		`{"service":{"name":"nested","start":8299,"end":9700,"ranges":[{"start":8299,"end":8300},{"start":9700,"end":9700}]}}`,  // 22: 8299
	}, "\n")
	parsed, err := Parse(strings.NewReader(lines))
	must(t, err)
	plan, err := MakePlan(t.Context(), c, parsed)
	must(t, err)
	found := map[int]bool{}
	for _, fault := range plan.Faults {
		found[fault.Line] = true
	}
	for line := 1; line <= 22; line++ {
		if want := line != 6 && line != 9 && line != 12 && line != 15 && line != 18; found[line] != want {
			t.Errorf("line %d: a fault %v, want %v: %v", line, found[line], want, plan.Faults)
		}
	}
	if plan.Left != 1 || plan.Ended != 1 {
		t.Errorf("%d are left, and %d ended", plan.Left, plan.Ended)
	}
	if after := export(t, c, "default"); after != before {
		t.Errorf("a plan changed %s to %s", before, after)
	}
	must(t, plan.Import(t.Context(), c, filepath.Join(t.TempDir(), "secrets"), nil))
	if s := export(t, c, "default"); !strings.Contains(s, `"good2"`) || !strings.Contains(s, `"one"`) || strings.Contains(s, `"over"`) {
		t.Errorf("what is right was not taken over: %s", s)
	}
}

// What somebody has taken since it was planned is told, and the others of its list are claimed.
func TestTakenMeanwhile(t *testing.T) {
	c := newClient(t)
	lines := []Line{{Pool: "default", Service: &Service{Name: "web", Start: 5000, End: 5099}}}
	for i, name := range []string{"ann", "ben", "cat", "dan"} {
		lines = append(lines, Line{Pool: "default", Allocation: &client.Allocation{Service: "web", Name: name, Port: 5000 + i, Count: 1}})
	}
	plan, err := MakePlan(t.Context(), c, lines)
	must(t, err)
	_, err = c.Define(t.Context(), client.Definition{Name: "web", Start: 5000, End: 5099})
	must(t, err)
	_, err = c.ClaimAll(t.Context(), "web", []client.Request{{Name: "ben"}, {Name: "eve", Port: 5003}}, client.Wait{})
	must(t, err)
	must(t, plan.Import(t.Context(), c, filepath.Join(t.TempDir(), "secrets"), nil))
	if len(plan.Faults) != 3 || len(plan.Claim) != 1 { // ben has 5000, which was to be ann's
		t.Errorf("claimed %v, faults %v", plan.Claim, plan.Faults)
	}
	if a, err := c.Allocation(t.Context(), "web", "cat"); err != nil || a.Port != 5002 {
		t.Errorf("cat has %+v, %v", a, err)
	}
}

// The routes of django-portmaster 0.0.1 are the same; it knows no pools, fences, leases or blocks.
func TestFromDjango(t *testing.T) {
	old := http.NewServeMux()
	old.HandleFunc("GET /v1/services", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `[{"name":"django","description":"Django service","start":5000,"end":10000}]`)
	})
	old.HandleFunc("GET /v1/services/django/ports", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `[{"service":"django","name":"web-01","port":5000,"created":"2024-03-01T10:00:00Z"},{"service":"django","name":"web 2","port":5001}]`)
	})
	server := httptest.NewServer(old)
	defer server.Close()
	from, err := client.New(server.URL, client.Options{})
	must(t, err)
	defer from.Close()
	var lines []Line
	for line, err := range Read(t.Context(), from, "default") {
		must(t, err)
		lines = append(lines, line)
	}
	c := newClient(t)
	plan, err := MakePlan(t.Context(), c, lines)
	must(t, err)
	must(t, plan.Import(t.Context(), c, filepath.Join(t.TempDir(), "secrets"), nil))
	if len(plan.Faults) != 1 || !strings.HasPrefix(plan.Faults[0].String(), "default/django web 2: ") {
		t.Errorf("faults %v", plan.Faults)
	}
	if a, err := c.Allocation(t.Context(), "django", "5000"); err != nil || a.Name != "web-01" {
		t.Errorf("port 5000 is %+v, %v", a, err)
	}
}

func TestParse(t *testing.T) {
	for lines, want := range map[string]string{
		"\n{}":                                              "line 2: must have a service or an allocation",
		`{"service":{},"allocation":{}}`:                    "line 1: must have a service or an allocation",
		"{\"service\":{\"name\":\"a\"}}\nx":                 "line 2: invalid character",
		`{"service":{"start":"5000"}}`:                      "line 1: json",
		`{"service":{"name":"` + strings.Repeat("a", 70000): "line 1 or later: bufio.Scanner: token too long",
	} {
		if _, err := Parse(strings.NewReader(lines)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", lines, err, want)
		}
	}
}
