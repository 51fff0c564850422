package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
	"portmaster/handlers/identity"
)

// group is a target group of Prometheus.
type group struct {
	Targets []string
	Labels  map[string]string
}

// shown is a group on one line.
func (g group) shown() string {
	labels := ""
	for _, name := range []string{"pool", "service", "name", "owner", "port", "index"} {
		if value, ok := g.Labels["__meta_portmaster_"+name]; ok {
			labels += " " + name + "=" + value
		}
	}
	return strings.Join(g.Targets, ",") + labels
}

func targetsIn(r answer) (all []string) {
	for _, g := range read[[]group](r.want(200)) {
		all = append(all, g.shown())
	}
	return all
}

func TestTargets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		all, allLine := newToken(t, "all", identity.Operator, "*/*", "-")
		some, someLine := newToken(t, "some", identity.Reader, "default/web", "-")
		guarded, _ := newGuardedAPI(t, store, allLine, someLine)
		operator, reader := guarded.as(all), guarded.as(some)
		operator("PUT", "/v1/services/web", `{"start":5000,"end":5009}`).want(201)
		operator("PUT", "/v1/services/game", `{"start":6000,"end":6999}`).want(201)
		operator("PUT", "/v1/pools/p2/services/web", `{"start":5000,"end":5009}`).want(201)
		equal(t, "nothing is allocated", operator("GET", "/v1/services/web/targets?host=h", "").want(200).body, "[]")
		operator("POST", "/v1/services/web/ports", `{"name":"job-1"}`).want(201)
		operator("POST", "/v1/services/web/offers", `{"name":"job-2"}`).want(201)
		operator("POST", "/v1/services/game/ports", `{"name":"arena","count":2}`).want(201)
		operator("POST", "/v1/pools/p2/services/web/ports", `{"name":"job-3"}`).want(201)
		web := "h:5000 pool=default service=web name=job-1 owner=all port=5000 index=0"
		game := "h:6000 pool=default service=game name=arena owner=all port=6000 index=0;h:6001 pool=default service=game name=arena owner=all port=6001 index=1"
		for _, test := range []struct{ path, want string }{
			{"/v1/services/web/targets", web},
			{"/v1/services/game/targets", game},
			{"/v1/targets", web + ";" + game},
			{"/v1/pools/default/targets", web + ";" + game},
			{"/v1/pools/p2/targets", "h:5000 pool=p2 service=web name=job-3 owner=all port=5000 index=0"},
			{"/v1/pools/none/targets", ""},
		} {
			equal(t, test.path, strings.Join(targetsIn(operator("GET", test.path+"?host=h", "")), ";"), test.want)
		}
		equal(t, "the pool in scope", strings.Join(targetsIn(reader("GET", "/v1/targets?host=h", "")), ";"), web)
		operator("GET", "/v1/services/none/targets?host=h", "").problem(404, "SERVICE_NOT_FOUND")
		operator("DELETE", "/v1/services/web/ports/job-1", "").want(204)
		equal(t, "after the release", operator("GET", "/v1/services/web/targets?host=h", "").want(200).body, "[]")
	})
}

func TestTargetsNeedAHost(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("web", "5000-5009")
	a.claim("web", `{"name":"job-1"}`)
	long := strings.Repeat("a", 63)
	for given, want := range map[string]string{
		"localhost": "localhost", "a": "a", "CI-7.example": "CI-7.example", "10.0.0.7": "10.0.0.7", "7.example": "7.example",
		"::1": "[::1]", "[::1]": "[::1]", "[2001:DB8::0:7]": "[2001:db8::7]", "::ffff:10.0.0.7": "[::ffff:10.0.0.7]",
		long + "." + long + "." + long + "." + long[:61]: long + "." + long + "." + long + "." + long[:61],
	} {
		for _, path := range []string{"/v1/services/web/targets", "/v1/targets"} {
			got := read[[]group](a.get(path + "?host=" + given).want(200))
			equal(t, given, got[0].Targets[0], want+":5000")
		}
	}
	for _, bad := range []string{"h:80", "[::1]:80", "[10.0.0.7]", "[localhost]", "[::1", "::1]", "[]", "fe80::1%25eth0", "[fe80::1%25eth0]", "10.0.0", "10.0.0.256",
		"010.0.0.1", "1", "a..b", ".a", "a.", "-a", "a-", "a_b", "a/b", "http://a", "a%22b", "a%0Ab", "%C3%A4", "a%20b", "*", long + "a", long + "." + long + "." + long + "." + long[:62]} {
		for _, path := range []string{"/v1/services/web/targets", "/v1/targets"} {
			p := a.get(path+"?host="+bad).problem(400, "INVALID")
			if len(p.Errors) != 1 || p.Errors[0].Field != "host" {
				t.Errorf("%s?host=%s: %+v", path, bad, p.Errors)
			}
		}
	}
	equal(t, "no host", a.get("/v1/targets").want(200).body, "[]")
	for _, query := range []string{"?host=", "?host=a&host=b", "?host=a&port=1"} {
		a.get("/v1/targets"+query).problem(400, "INVALID")
	}
}

// An allocation may say its host in a label, and has its other labels in those of its targets.
func TestTargetsOfLabels(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("web", "5000-5009")
		a.claim("web", `{"name":"a","count":2,"labels":{"host":"ci-7.example","text":"\"\\é"}}`)
		a.claim("web", `{"name":"b","labels":{"host":"::1"}}`)
		a.claim("web", `{"name":"c","labels":{"host":"h:80"}}`)
		a.claim("web", `{"name":"d","labels":{"job":"1"}}`)
		a.claim("web", `{"name":"e"}`)
		for _, path := range []string{"/v1/services/web/targets", "/v1/targets"} {
			for query, want := range map[string]string{"": "ci-7.example:5000 ci-7.example:5001 [::1]:5002", "?host=h": "h:5000 h:5001 h:5002 h:5003 h:5004 h:5005"} {
				var got []string
				for _, g := range read[[]group](a.get(path + query).want(200)) {
					got = append(got, g.Targets...)
				}
				equal(t, path+query, strings.Join(got, " "), want)
			}
			first := read[[]group](a.get(path).want(200))[1]
			equal(t, "text", first.Labels["__meta_portmaster_label_text"], `"\é`)
			equal(t, "host", first.Labels["__meta_portmaster_label_host"], "ci-7.example")
			equal(t, "index", first.Labels["__meta_portmaster_index"], "1")
		}
	})
}

// crowd fills a pool with more targets than are sent at once: blocks of 100.
func (a *api) crowd() (ports int) {
	a.t.Helper()
	const blocks = 20
	a.define("large", "20000-29999")
	for i := range blocks {
		a.claim("large", fmt.Sprintf(`{"name":"block-%d","count":100}`, i))
	}
	return 100 * blocks
}

func TestManyTargets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		want := a.crowd()
		for _, path := range []string{"/v1/services/large/targets?host=h", "/v1/targets?host=h"} {
			r := a.get(path)
			got := targetsIn(r)
			equal(t, path, len(got), want)
			equal(t, "the last", got[want-1], fmt.Sprintf("h:%d pool=default service=large name=block-19 port=%d index=99", 19999+want, 19999+want))
			equal(t, "length", r.header.Get("Content-Length"), "")
			equal(t, "HEAD", a.do("HEAD", path, "").want(200).body, "")
			old := a.raw("GET " + path + " HTTP/1.0\r\nHost: a\r\n\r\n")
			equal(t, "by HTTP/1.0", old.body, r.body)
			if old.header.Get("Content-Length") == "" {
				t.Error("an answer by HTTP/1.0 has no length")
			}
		}
	})
}

// failing fails what Redis is asked of a key.
type failing struct{ key string }

func (failing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (failing) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (f failing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if cmd.Name() == "hmget" && strings.HasSuffix(fmt.Sprint(cmd.Args()[1]), f.key) {
				return io.ErrUnexpectedEOF
			}
		}
		return next(ctx, cmds)
	}
}

// An answer that cannot be completed breaks off, so that nobody takes it for all targets.
func TestTargetsBreakOff(t *testing.T) {
	store := storetest.Mini(t)
	a := newAPI(t, store)
	a.crowd()
	a.define("last", "30000-30000")
	a.claim("last", `{"name":"last"}`)
	store.Client.AddHook(failing{"ports:last"})
	response, err := a.client.Get("http://" + a.addr + "/v1/targets?host=h")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	equal(t, "status", response.StatusCode, 200)
	body, err := io.ReadAll(response.Body)
	if err == nil || json.Valid(body) || len(body) < targetsAtOnce {
		t.Errorf("%d bytes came, and the error is %v", len(body), err)
	}
	contains(t, a.log.String(), "targets are cut short", response.Header.Get("X-Request-ID"))
	if old := a.raw("GET /v1/targets?host=h HTTP/1.0\r\nHost: a\r\n\r\n"); old.status != 503 {
		t.Errorf("by HTTP/1.0, which could not tell that it broke off:\n%s", old)
	}
	a.get("/v1/services/last/targets?host=h").want(200)
}
