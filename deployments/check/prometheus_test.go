//lint:file-ignore SA1019 the older form of a dashboard is the one that every Grafana imports

package check

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"
)

// TestAlerts has promtool read the alerts and play the cases of alerts_test.yaml.
func TestAlerts(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		_, checked := promtool.run(t, dir, "check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml")
		_, tested := promtool.run(t, dir, "test", "rules", "alerts_test.yaml")
		return errors.Join(checked, tested)
	},
		mutant{"alerts.yaml", "absent(portmaster_redis_up)", "absent(portmaster_redis_up", "unclosed left parenthesis"},
	)
}

// Every alert has a case in which it fires, and one in which it does not although what it looks at is there.
func TestAlertsAreTested(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		var file struct {
			Tests []struct {
				Cases []struct {
					Alert string `json:"alertname"`
					Fires []any  `json:"exp_alerts"`
				} `json:"alert_rule_test"`
			} `json:"tests"`
		}
		if err := yaml.Unmarshal([]byte(read(t, filepath.Join(dir, "alerts_test.yaml"))), &file); err != nil {
			return err
		}
		fires, silent := map[string]bool{}, map[string]bool{}
		for _, test := range file.Tests {
			for _, c := range test.Cases {
				if len(c.Fires) > 0 {
					fires[c.Alert] = true
				} else {
					silent[c.Alert] = true
				}
			}
		}
		var faults []error
		for _, rule := range alertRules(t, dir) {
			if !fires[rule.Alert] {
				faults = append(faults, fmt.Errorf("alerts_test.yaml has no case in which %s fires", rule.Alert))
			}
			if !silent[rule.Alert] {
				faults = append(faults, fmt.Errorf("alerts_test.yaml has no case in which %s does not fire", rule.Alert))
			}
		}
		return errors.Join(faults...)
	},
		mutant{"alerts.yaml", "alert: PortmasterMemoryLow", "alert: PortmasterMemoryLower", "no case in which PortmasterMemoryLower fires"},
	)
}

// alertRule is what the checks read of a rule.
type alertRule struct {
	Alert  string            `json:"alert"`
	Expr   string            `json:"expr"`
	Labels map[string]string `json:"labels"`
}

func alertRules(t *testing.T, dir string) (rules []alertRule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []alertRule `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(dir, "alerts.yaml"))), &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

// TestDashboard decodes the dashboard by Grafana's own types, in which an unknown field is an error.
func TestDashboard(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		d, err := parseDashboard(t, dir)
		return errors.Join(err, checkLayout(d))
	},
		mutant{"dashboard.json", `"legendFormat"`, `"legendFromat"`, "legendFromat"},
	)
}

func parseDashboard(t *testing.T, dir string) (d dashboard.Dashboard, err error) {
	text := []byte(read(t, filepath.Join(dir, "dashboard.json")))
	plugins.RegisterDefaultPlugins()
	// The strict decoder always returns an error, which may be an empty list, and leaves out the queries.
	var strict dashboard.Dashboard
	var faults cog.BuildErrors
	if err := strict.UnmarshalJSONStrict(text); !errors.As(err, &faults) || len(faults) > 0 {
		return d, err
	}
	return d, json.Unmarshal(text, &d)
}

// checkLayout finds panels that share an id or a place.
func checkLayout(d dashboard.Dashboard) error {
	ids := map[uint32]bool{}
	places := map[[2]uint32]string{}
	for _, p := range d.Panels {
		panel := p.Panel
		if ids[*panel.Id] {
			return fmt.Errorf("two panels have the id %d", *panel.Id)
		}
		ids[*panel.Id] = true
		for x := panel.GridPos.X; x < panel.GridPos.X+panel.GridPos.W; x++ {
			for y := panel.GridPos.Y; y < panel.GridPos.Y+panel.GridPos.H; y++ {
				if other, taken := places[[2]uint32{x, y}]; taken {
					return fmt.Errorf("%s and %s overlap", other, *panel.Title)
				}
				places[[2]uint32{x, y}] = *panel.Title
			}
		}
	}
	return nil
}

// query is an expression, and what bears it.
type query struct{ owner, expr string }

// queries returns all of the alerts and of the dashboard, whose variables stand for what they are when all is chosen.
func queries(t *testing.T, dir string) (all []query, err error) {
	for _, rule := range alertRules(t, dir) {
		all = append(all, query{rule.Alert, rule.Expr})
	}
	d, err := parseDashboard(t, dir)
	if err != nil {
		return nil, err
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$pool", ".*")
	for _, p := range d.Panels {
		for _, target := range p.Panel.Targets {
			all = append(all, query{*p.Panel.Title, variables.Replace(target.(*prometheus.Dataquery).Expr)})
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == dashboard.VariableTypeQuery {
			// label_values(METRIC, LABEL) is Grafana's; in PromQL it reads so.
			metric, label, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(*v.Query.String, "label_values("), ")"), ", ")
			all = append(all, query{v.Name, "sum by (" + label + ") (" + metric + ")"})
		}
	}
	return all, nil
}

// TestMetricsExist runs the server and looks for every metric and every label that the alerts and the dashboard name.
func TestMetricsExist(t *testing.T) {
	exposed := scrape(t)
	holds(t, func(t *testing.T, dir string) error {
		all, err := queries(t, dir)
		if err != nil {
			return err
		}
		if len(all) < 20 {
			t.Fatalf("there are only %d queries", len(all))
		}
		faults := []error{isPromQL(t, all)}
		for _, q := range all {
			if err := exposed.check(q.expr); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", q.owner, err))
			}
		}
		return errors.Join(faults...)
	},
		mutant{"alerts.yaml", "portmaster_redis_up == 0", "portmaster_redis_down == 1", "portmaster_redis_down"},
		mutant{"alerts.yaml", `status=~"5.."`, `code=~"5.."`, "no label code"},
		mutant{"alerts.yaml", "by (pool, service) (portmaster_waiting", "by (pool, services) (portmaster_waiting", "no label services"},
		mutant{"dashboard.json", "label_values(portmaster_ports, pool)", "label_values(portmaster_ports, pools)", "no label pools"},
		mutant{"dashboard.json", "(portmaster_redis_connections{", "portmaster_redis_connections{", "parse error"},
	)
}

// isPromQL has promtool read queries, as rules.
func isPromQL(t *testing.T, all []query) error {
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for i, q := range all {
		rules = append(rules, rule{fmt.Sprintf("query_%d", i), q.expr})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "queries", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "queries.yaml")
	write(t, file, string(text))
	_, err = promtool.run(t, filepath.Dir(file), "check", "rules", "--lint=none", file)
	return err
}

// metrics are the labels of each series that a server exposes.
type metrics map[string][]string

// scrape runs a server with its own store, has each kind of answer once, and reads its /metrics.
func scrape(t *testing.T) metrics {
	t.Helper()
	addr := freeAddr(t)
	startServer(t, addr)
	post := func(path, body string) {
		response, err := http.Post("http://"+addr+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	post("/v1/services", `{"name":"django","start":5000,"end":5009}`)
	post("/v1/services/django/offers", `{"name":"web-01"}`)
	post("/v1/services", `{"name":"one","start":5010,"end":5010}`)
	post("/v1/services/one/ports", `{"name":"web-01"}`)
	post("/v1/services/one/ports?wait=0.01", `{"name":"web-02"}`)
	families := familiesOf(t, addr)
	_, overTLS := startTLSServer(t, selfSigned(t, "portmaster"), "PORTMASTER_AUDIT=all", "PORTMASTER_AUDIT_FILE="+filepath.Join(t.TempDir(), "audit.log"))
	for _, other := range []string{overTLS, startWithQuota(t)} {
		for name, family := range familiesOf(t, other) {
			if _, both := families[name]; !both {
				families[name] = family
			}
		}
	}
	// Prometheus adds up by itself, and these labels to all.
	target := []string{"job", "instance"}
	exposed := metrics{"up": target}
	for name, family := range families {
		labels := slices.Clone(target)
		for _, pair := range family.Metric[0].Label {
			labels = append(labels, pair.GetName())
		}
		if family.Metric[0].Histogram == nil {
			exposed[name] = labels
			continue
		}
		exposed[name+"_sum"], exposed[name+"_count"] = labels, labels
		exposed[name+"_bucket"] = append(slices.Clone(labels), "le")
	}
	return exposed
}

// startWithQuota starts a server that has served an owner with a quota, and returns where its metrics are.
func startWithQuota(t *testing.T) (ops string) {
	t.Helper()
	const token = "pm_quota"
	addr, ops, file := freeAddr(t), freeAddr(t), filepath.Join(t.TempDir(), "tokens")
	write(t, file, fmt.Sprintf("ci operator */* held=5 sha256:%x\n", sha256.Sum256([]byte(token))))
	startServer(t, addr, "PORTMASTER_AUTH_TOKENS_FILE="+file, "PORTMASTER_OPS_ADDR="+ops)
	for _, call := range [][2]string{
		{"/v1/services", `{"name":"django","start":5000,"end":5009}`}, {"/v1/services/django/ports", `{"name":"web-01"}`},
	} {
		request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+call[0], strings.NewReader(call[1]))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != http.StatusCreated {
			t.Fatalf("POST %s: %s", call[0], response.Status)
		}
	}
	return ops
}

// familiesOf scrapes one server.
func familiesOf(t *testing.T, addr string) map[string]*dto.MetricFamily {
	t.Helper()
	response, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	textParser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := textParser.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

var (
	quoted    = regexp.MustCompile(`"[^"]*"`)
	metric    = regexp.MustCompile(`\b((?:portmaster|process|go)_\w+|up)\b(?:\{([^}]*)\})?`)
	labelName = regexp.MustCompile(`\w+`)
	grouping  = regexp.MustCompile(`\b(?:by|on|without|group_left) \(([^)]*)\)`)
)

// check looks for the metrics and labels that an expression names. Whether it is PromQL says promtool.
func (m metrics) check(expr string) error {
	expr = quoted.ReplaceAllString(expr, "")
	var faults []error
	all := map[string]bool{}
	for _, found := range metric.FindAllStringSubmatch(grouping.ReplaceAllString(expr, ""), -1) {
		labels, ok := m[found[1]]
		if !ok {
			faults = append(faults, fmt.Errorf("no server exposes %s", found[1]))
		}
		for _, label := range labels {
			all[label] = true
		}
		for _, label := range labelName.FindAllString(found[2], -1) {
			if ok && !slices.Contains(labels, label) {
				faults = append(faults, fmt.Errorf("%s has no label %s", found[1], label))
			}
		}
	}
	for _, found := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, label := range labelName.FindAllString(found[1], -1) {
			if !all[label] {
				faults = append(faults, fmt.Errorf("%s has no label %s", expr, label))
			}
		}
	}
	return errors.Join(faults...)
}
