package handlers

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

// auditing makes a server write its audit to the returned lines.
func auditing(refusals bool) (*logs, func(*settings)) {
	lines := &logs{}
	return lines, func(s *settings) { s.server.Audit = Audit{slog.New(slog.NewJSONHandler(lines, nil)), refusals} }
}

// take returns the lines, without what differs from run to run, and forgets them. Each must say when, for which request and from where.
func (l *logs) take(t *testing.T) (lines []string) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		if fields["msg"] != "audit" || fields["request_id"] == nil || fields["ip"] != "127.0.0.1" || fields["time"] == nil {
			t.Errorf("line %s", line)
		}
		if fields["fence"] != nil {
			fields["fence"] = "F"
		}
		var text []string
		for _, key := range []string{"operation", "pool", "service", "name", "port", "count", "fence", "requests", "code", "repeat"} {
			if fields[key] != nil {
				text = append(text, fmt.Sprint(fields[key]))
			}
			delete(fields, key)
		}
		if level := fields["level"]; level != "INFO" {
			text = append(text, fmt.Sprint(level))
		}
		if left := slices.Sorted(maps.Keys(fields)); len(left) != 5 {
			t.Errorf("fields %s", left)
		}
		lines = append(lines, strings.Join(text, " "))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
	return lines
}

// Each call that changes something has a line, and one for each port of a list. Repeated calls are marked.
func TestAudit(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		lines, on := auditing(false)
		a := newAPI(t, store, on)
		var seen []string
		said := func(want ...string) {
			t.Helper()
			got := lines.take(t)
			if !slices.Equal(got, want) {
				t.Errorf("the audit says %q, want %q", got, want)
			}
			seen = append(seen, got...)
		}
		const secret = "6f8ffc86-d98a-49ba-848a-a7cbaaea9360"
		a.post("/v1/services", `{"name":"django","start":5000,"end":5019}`).want(201)
		a.put("/v1/pools/host-1/services/flask", `{"start":5000,"end":5001}`).want(201)
		a.put("/v1/pools/host-1/services/flask", `{"start":5000,"end":5002}`).want(200)
		a.do("PATCH", "/v1/pools/host-1/services/flask", `{"cooldown":1}`).want(200)
		a.delete("/v1/pools/host-1/services/flask").want(204)
		said("createService default django OK", "defineService host-1 flask OK", "defineService host-1 flask OK", "changeService host-1 flask OK", "removeService host-1 flask OK")

		a.post("/v1/services/django/offers", `{"name":"web-01","secret":"`+secret+`"}`).want(201)
		a.post("/v1/services/django/offers", `{"name":"web-01","secret":"`+secret+`"}`).want(200)
		a.post("/v1/services/django/offers/"+secret+"/accept", "").want(201)
		a.put("/v1/services/django/offers/"+secret, "").want(200)
		said("offer default django web-01 5000 OK", "offer default django web-01 5000 OK true",
			"accept default django web-01 5000 F OK", "accept default django web-01 5000 F OK true")

		rejected := a.offer("django", "web-02").path()
		a.post(rejected+"/reject", `{"reason":"in_use"}`).want(204)
		a.delete(rejected).want(204)
		said("offer default django web-02 5001 OK", "reject default django web-02 5001 OK", "reject default django OK true")

		held := read[[]allocation](a.post("/v1/services/django/ports", `[{"name":"a","lease":60},{"name":"farm","count":3}]`).want(201))
		said("claim default django a 5005 F OK", "claim default django farm 5002 3 F OK")
		a.post("/v1/services/django/ports/a/renew", `{"secret":"`+held[0].Secret+`"}`).want(200)
		a.do("PATCH", "/v1/services/django/ports/a", `{"secret":"`+held[0].Secret+`","labels":{"a":"1"}}`).want(200)
		a.delete("/v1/services/django/ports/5004", "Portmaster-Secret", held[1].Secret).want(204)
		a.delete("/v1/services/django/ports/5004", "Portmaster-Secret", held[1].Secret).want(204)
		a.delete("/v1/services/django/ports/a", "Portmaster-Secret", held[0].Secret).want(204)
		a.claim("django", `{"name":"a"}`)
		a.delete("/v1/services/django/ports/a", "Portmaster-Secret", held[0].Secret).want(204) // not that of the next a
		a.delete("/v1/services/django/ports/a").want(204)
		said("renew default django a 5005 F OK", "changeLabels default django a 5005 F OK", "release default django farm 5002 3 F OK", "release default django 5004 OK true",
			"release default django a 5005 F OK", "claim default django a 5002 F OK", "release default django a OK true", "release default django a 5002 F OK")

		a.delete("/v1/services/django/ports?owner=nobody").want(200)
		said("releaseMatching default django OK")

		a.get("/v1/services").want(200)
		a.get("/v1/services/flask").want(404)
		a.do("PATCH", "/v1/services", "").want(405)
		said()
		for _, r := range poolRoutes {
			if r.method != "GET" && !slices.ContainsFunc(seen, func(line string) bool { return strings.HasPrefix(line, r.operation+" ") }) {
				t.Errorf("%s has no line", r.operation)
			}
		}
	})
}

// A call that changes nothing since it was refused has one line, with what it asked for. With Refusals it is the only one.
func TestAuditOfRefusals(t *testing.T) {
	lines, on := auditing(true)
	a := newAPI(t, storetest.Mini(t), on, func(s *settings) { s.allocator.MaxWaiting = 1 })
	a.define("django", "5000-5000")
	held := a.claim("django", `{"name":"web-01"}`)
	const other = "6f8ffc86-d98a-49ba-848a-a7cbaaea9360"
	for _, test := range []struct {
		method, path, body, want string
		headers                  []string
	}{
		{"POST", "/ports", `{"name":"web-02"}`, "claim default django web-02 EXHAUSTED WARN", nil},
		{"POST", "/ports", `{"name":"web-02","port":5000}`, "claim default django web-02 5000 PORT_TAKEN WARN", nil},
		{"POST", "/offers", `[{"name":"web-01"},{"name":"web-03"}]`, "offer default django 2 INVALID WARN", nil},
		{"POST", "/offers", `{`, "offer default django INVALID WARN", nil},
		{"POST", "/offers/" + other + "/accept", "", "accept default django OFFER_NOT_FOUND WARN", nil},
		{"DELETE", "/offers/" + other, "", "reject default django OFFER_NOT_FOUND WARN", nil},
		{"POST", "/ports/web-01/renew", `{"secret":"` + other + `"}`, "renew default django web-01 SECRET_MISMATCH WARN", nil},
		{"DELETE", "/ports/5000", "", "release default django 5000 SECRET_MISMATCH WARN", []string{"Portmaster-Secret", other}},
		{"DELETE", "/ports/web-01", "", "release default django web-01 PRECONDITION_FAILED WARN", []string{"If-Match", `"1"`}},
		{"DELETE", "/ports/web-09", "", "release default django web-09 PORT_NOT_FOUND WARN", nil},
		{"DELETE", "", "", "removeService default django SERVICE_IN_USE WARN", nil},
		{"PUT", "", `{"start":1,"end":2}`, "defineService default django INVALID WARN", nil},
		// What could be a secret is left out, wherever a client puts it. So is what is no name.
		{"POST", "/ports", `{"name":"` + held.Secret + `"}`, "claim default django EXHAUSTED WARN", nil},
		{"DELETE", "/ports/" + strings.ToUpper(other), "", "release default django PORT_NOT_FOUND WARN", nil},
		{"DELETE", "/ports/x" + strings.ReplaceAll(other, "-", ""), "", "release default django PORT_NOT_FOUND WARN", nil},
		{"DELETE", "/ports/pm_web-01", "", "release default django PORT_NOT_FOUND WARN", nil},
		{"DELETE", "/ports/a%0Ab", "", "release default django INVALID WARN", nil},
		{"DELETE", "/ports/npm_ci%2Fa", "", "release default django npm_ci/a PORT_NOT_FOUND WARN", nil},
		{"DELETE", "/ports/token=pm_web-01", "", "release default django PORT_NOT_FOUND WARN", nil},
		{"DELETE", "/ports/" + strings.Repeat("n", 129), "", "release default django INVALID WARN", nil},
	} {
		if status := a.do(test.method, "/v1/services/django"+test.path, test.body, test.headers...).status; status < 400 {
			t.Errorf("%s %s has status %d", test.method, test.path, status)
		}
		text := lines.String()
		a.noSecretsIn("the audit", text)
		if strings.Contains(text, "/v1") {
			t.Errorf("a path is in %s", text)
		}
		if got := lines.take(t); !slices.Equal(got, []string{test.want}) {
			t.Errorf("%s %s %s: the audit says %q, want %q", test.method, test.path, test.body, got, test.want)
		}
	}
}

// Whoever may not read is noted as well, on a route that changes nothing or on none.
func TestAuditOfRefusedReads(t *testing.T) {
	lines, on := auditing(false)
	refused := func(*Server, *fiber.Ctx) error { return &allocator.Error{Code: allocator.CodeSecretMismatch} }
	a := newAPI(t, storetest.Mini(t), on, func(s *settings) {
		s.further = []route{{"GET", "/v1/refused", "refused", reading, nil, refused}}
	})
	equal(t, "status", statusOf(t, a.addr+"/v1/refused"), 403)
	if got := lines.take(t); !slices.Equal(got, []string{"refused default SECRET_MISMATCH WARN"}) {
		t.Errorf("the audit says %q", got)
	}
}
