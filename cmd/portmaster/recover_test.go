package main

import (
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

// TestRecover empties a Redis under two servers, of which one hears of it from the other's mark at the latest.
func TestRecover(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	settings := store.Settings()
	p, other := startProgram(t, settings...), startProgram(t, settings...)
	p.must(t, 201, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`)
	if code, stdout, stderr := run(t, []string{"recover"}, settings...); code != 0 || stdout != "nothing was lost\n" {
		t.Errorf("where all is well it exits with %d and says %q %q", code, stdout, stderr)
	}
	if err := store.Admin.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for _, server := range []*program{p, other} {
		eventually(t, "/readyz is 503", func() bool { return server.status(t, "/readyz") == 503 })
		if got := server.must(t, 503, "GET", "/readyz", ""); !strings.Contains(got, "portmaster recover") {
			t.Errorf("it does not say what to do: %s", got)
		}
		server.must(t, 503, "POST", "/v1/services/django/offers", `{"name":"web-01"}`)
		server.must(t, 503, "PUT", "/v1/services/django", `{"start":5000,"end":5009}`)
		server.must(t, 503, "GET", "/v1/services/django", "")
		if metrics := server.must(t, 200, "GET", "/metrics", ""); !strings.Contains(metrics, `portmaster_store_problem{problem="state_lost"} 1`) {
			t.Error("the metrics do not tell")
		}
		eventually(t, "the log tells", func() bool { return strings.Contains(server.log.String(), "problem=state_lost") })
	}

	if code, stdout, stderr := run(t, []string{"recover"}, settings...); code != 0 || !strings.Contains(stdout, "recovered") {
		t.Fatalf("it exits with %d and says %q %q", code, stdout, stderr)
	}
	for _, server := range []*program{p, other} {
		eventually(t, "/readyz is 200", func() bool { return server.status(t, "/readyz") == 200 })
	}
	p.must(t, 201, "PUT", "/v1/services/django", `{"start":5000,"end":5009}`)
	other.must(t, 201, "POST", "/v1/services/django/offers", `{"name":"web-01"}`)
}

// Where it cannot be done the error is one line, and go-redis's own are not shown.
func TestRecoverNeedsARedis(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	const away = "portmaster: UNAVAILABLE: "
	for url, says := range map[string]string{
		"":                                       "portmaster: PORTMASTER_REDIS_URL is empty",
		"redis://127.0.0.1:1":                    away,
		"redis://127.0.0.1:1?master_name=nobody": away,
		"redis+cluster://127.0.0.1:1":            away,
		"redis://" + store.Addr:                  "portmaster: PORTMASTER_REDIS_URL or PORTMASTER_REDIS_PASSWORD_FILE: Redis refuses the login: NOAUTH",
	} {
		code, _, stderr := run(t, []string{"recover"}, "PORTMASTER_REDIS_URL="+url, "PORTMASTER_LOG_LEVEL=warn")
		if code != 1 || !strings.HasPrefix(stderr, says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("with %q it exits with %d and says %q", url, code, stderr)
		}
	}
}

func TestVolatileRedisIsWarnedOf(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t, "--appendonly", "no")
	const warning = "level=WARN msg=\"Redis has no append-only file"
	p := startProgram(t, store.Settings()...)
	eventually(t, "the log warns", func() bool { return strings.Contains(p.log.String(), warning) })
	p.must(t, 200, "GET", "/readyz", "")
	allowed := startProgram(t, append(store.Settings(), "PORTMASTER_ALLOW_VOLATILE=true")...)
	allowed.must(t, 200, "GET", "/readyz", "")
	metrics := allowed.must(t, 200, "GET", "/metrics", "")
	if strings.Contains(allowed.log.String(), warning) || !strings.Contains(metrics, `portmaster_store_problem{problem="volatile"} 0`) {
		t.Errorf("it is warned of although it is allowed:\n%s", allowed.log)
	}
}
