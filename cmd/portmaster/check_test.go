package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

// TestCheck breaks an index under a running server: check finds it, repairs it, and finds nothing then.
func TestCheck(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	settings := store.Settings()
	p := startProgram(t, settings...)
	for _, pool := range []string{"", "/pools/eu"} {
		p.must(t, 201, "POST", "/v1"+pool+"/services", `{"name":"django","start":5000,"end":5009}`)
		p.must(t, 201, "POST", "/v1"+pool+"/services/django/ports", `{"name":"web-01"}`)
	}
	wants := func(what string, wantCode int, wantOut string, args ...string) {
		t.Helper()
		code, stdout, stderr := run(t, append([]string{"check"}, args...), settings...)
		if code != wantCode || !strings.HasPrefix(stdout, wantOut) {
			t.Errorf("%s: it exits with %d and says %q %q", what, code, stdout, stderr)
		}
	}
	wants("all is well", 0, "all keys agree\n")
	for _, step := range steps(t, sectionCheck) {
		for line := range strings.Lines(step.commands.text) {
			wants("the page's "+line, 0, "all keys agree\n", strings.Fields(line)[2:]...)
		}
	}
	if err := store.Admin.ZAdd(t.Context(), "portmaster:{eu}:free:django", redis.Z{Score: 1, Member: "5000"}).Err(); err != nil {
		t.Fatal(err)
	}
	const found = "eu/django 5000 held_and_free: web-01 has the port, which would be handed out"
	wants("another pool", 0, "all keys agree\n", "--pool", "default")
	wants("it only looks", 1, found+"\n")
	code, stdout, _ := run(t, []string{"check", "-o", "json"}, settings...)
	var one allocator.Inconsistency
	if err := json.Unmarshal([]byte(stdout), &one); err != nil || code != 1 || one.Pool != "eu" || one.Entry != "5000" || one.Repaired {
		t.Errorf("-o json: it exits with %d and says %q: %v", code, stdout, err)
	}
	wants("it repairs", 1, found+" (repaired)\n", "--repair", "--pool", "eu")
	wants("it was repaired", 0, "all keys agree\n")
	wants("a pool that cannot be", 1, "", "--pool", "{}")
	wants("an output that there is not", 2, "", "-o", "xml")
}
