package handlers

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
	"portmaster/handlers/identity"
)

// tokensFile is the tokens file of a server under test.
type tokensFile struct {
	t    testing.TB
	path string
}

// newToken returns a token and its line.
func newToken(t testing.TB, name string, role identity.Role, scope, options string) (token, line string) {
	t.Helper()
	token = identity.NewToken()
	line, err := identity.Line(name, role, scope, options, token)
	if err != nil {
		t.Fatal(err)
	}
	return token, line
}

// write replaces the file.
func (f tokensFile) write(lines ...string) {
	f.t.Helper()
	if err := os.WriteFile(f.path+".new", []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		f.t.Fatal(err)
	}
}

// newGuardedAPI returns a server whose tokens file has the lines.
func newGuardedAPI(t testing.TB, store storetest.Store, lines ...string) (*api, tokensFile) {
	t.Helper()
	file := tokensFile{t, filepath.Join(t.TempDir(), "tokens")}
	file.write(lines...)
	return newAPI(t, store, func(s *settings) {
		auth, err := identity.New(t.Context(), identity.Options{TokensFile: file.path, Log: s.server.Log})
		if err != nil {
			t.Fatal(err)
		}
		s.server.Auth = auth
	}), file
}

// as returns the same client with a token, which no answer and no log may show.
func (a *api) as(token string) func(method, path, body string, headers ...string) answer {
	a.secrets[token] = true
	return func(method, path, body string, headers ...string) answer {
		a.t.Helper()
		return a.do(method, path, body, append(headers, "Authorization", "Bearer "+token)...)
	}
}

// commands counts what Redis is asked.
type commands struct{ atomic.Int64 }

func (*commands) DialHook(next redis.DialHook) redis.DialHook { return next }

func (n *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		n.Add(1)
		return next(ctx, cmd)
	}
}

func (n *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		n.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

// byNext counts the commands while do runs. If there are some, they may be the last ones of a stream of events that has ended, so it
// does it again.
func (n *commands) byNext(do func()) (count int64) {
	for range 20 {
		before := n.Load()
		do()
		if count = n.Load() - before; count == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return count
}

// bodies are those of the operations that have one.
var bodies = map[string]string{
	"createService": `{"name":"SERVICE","start":5000,"end":5009}`, "defineService": `{"start":5000,"end":5009}`, "changeService": `{"cooldown":60}`,
	"offer": `{"name":"web-01"}`, "claim": `{"name":"web-01"}`, "renew": `{"secret":"6f8ffc86-d98a-49ba-848a-a7cbaaea9360","lease":60}`,
	"changeLabels": `{"secret":"6f8ffc86-d98a-49ba-848a-a7cbaaea9360","labels":{"a":null}}`,
}

// Every route, for every role, in scope and out of scope: who may not use it gets 403, and Redis is not asked.
func TestWhoMayDoWhat(t *testing.T) {
	store := storetest.Mini(t)
	asked := &commands{}
	store.Client.AddHook(asked)
	roles, lines := map[identity.Role]string{}, []string{}
	for _, role := range []identity.Role{identity.Reader, identity.Client, identity.Operator} {
		token, line := newToken(t, string(role), role, "default/in-*", "-")
		roles[role], lines = token, append(lines, line)
	}
	a, _ := newGuardedAPI(t, store, lines...)
	a.as(roles[identity.Operator])("PUT", "/v1/services/in-a", bodies["defineService"]).want(201)
	cellOf := func(a *access, role identity.Role) string {
		return map[identity.Role]string{identity.Reader: a.reader, identity.Client: a.client, identity.Operator: a.operator}[role]
	}
	const secret = "6f8ffc86-d98a-49ba-848a-a7cbaaea9360"
	try := func(r route, path, service string, inScope bool) {
		path = strings.NewReplacer(":service", service, ":secret", secret, ":port", "5000").Replace(path)
		for role, token := range roles {
			may := r.access == everybody || cellOf(r.access, role) != "" && inScope
			query := ""
			switch {
			case slices.Equal(r.query, ofFilter):
				query = "?owner=" + string(role) // the name of its token
			case slices.Equal(r.query, ofTargets):
				query = "?host=a"
			}
			body := strings.Replace(bodies[r.operation], "SERVICE", service, 1)
			before := asked.Load()
			answer := a.as(token)(r.method, path+query, body)
			count := asked.Load() - before
			refused := answer.status == 403 && read[problem](answer).Code == codeForbidden
			if refused && count > 0 {
				count = asked.byNext(func() { a.as(token)(r.method, path+query, body) })
			}
			if refused == may || refused && count > 0 || !refused && count == 0 && r.access != everybody {
				t.Errorf("%s may %s %s: %t; Redis was asked %d commands\n%s", role, r.method, path, may, count, answer)
			}
		}
		if r.access == everybody {
			a.do(r.method, path, "").want(200)
			return
		}
		equal(t, "commands of a stranger", asked.byNext(func() {
			a.do(r.method, path, bodies[r.operation]).problem(401, codeUnauthenticated)
		}), 0)
	}
	for _, r := range serverRoutes {
		try(r, r.path, "", true)
	}
	for _, r := range poolRoutes {
		hasName := strings.Contains(r.path, ":service") || r.operation == "createService"
		for _, service := range []string{"in-a", "out-a"} {
			try(r, defaultMount+r.path, service, service == "in-a" || !hasName)
			try(r, "/v1/pools/default"+r.path, service, service == "in-a" || !hasName)
			try(r, "/v1/pools/other"+r.path, service, false)
		}
	}
	try(poolRoutes[2], "/v1/services/%69n-a", "", true) // the name that the scope is asked for is the one that is used
	try(poolRoutes[2], "/v1/services/%6Fut-a", "", false)
	for token := range maps.Values(roles) {
		metrics := a.as(token)("GET", "/metrics", "").body
		a.noSecretsIn("the metrics", metrics)
	}
}

// Lists have what is in scope; pages lead on over the rest.
func TestListsHaveTheScope(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		all, allLine := newToken(t, "all", identity.Operator, "*/*", "-")
		some, someLine := newToken(t, "some", identity.Reader, "default/in-*,p2/*", "-")
		a, _ := newGuardedAPI(t, store, allLine, someLine)
		for i, path := range []string{"services/in-1", "services/out-1", "services/out-2", "services/in-2", "pools/p1/services/a", "pools/p2/services/a"} {
			a.as(all)("PUT", "/v1/"+path, fmt.Sprintf(`{"start":%d,"end":%d}`, 5000+10*i, 5009+10*i)).want(201)
		}
		walk := func(token, path string) (names []string) {
			for path != "" {
				r := a.as(token)("GET", path, "").want(200)
				for _, item := range read[[]struct{ Name string }](r) {
					names = append(names, item.Name)
				}
				path, _, _ = strings.Cut(strings.TrimPrefix(r.header.Get("Link"), "<"), ">")
			}
			return names
		}
		for _, test := range []struct{ token, path, want string }{
			{some, "/v1/services", "in-1 in-2"},
			{some, "/v1/services?limit=1", "in-1 in-2"},
			{some, "/v1/pools", "default p2"},
			{some, "/v1/pools?limit=1", "default p2"},
			{all, "/v1/services?limit=1", "in-1 out-1 out-2 in-2"},
			{all, "/v1/pools?limit=1", "default p1 p2"},
		} {
			equal(t, test.path, strings.Join(walk(test.token, test.path), " "), test.want)
		}
		first := a.as(some)("GET", "/v1/pools?limit=1", "")
		if link := first.header.Get("Link"); strings.Contains(link, "p1") {
			t.Errorf("the link names a pool out of scope: %s", link)
		}
	})
}

// Whatever is wrong with a token, the answer is the same byte for byte.
func TestStrangersGetOneAnswer(t *testing.T) {
	good, line := newToken(t, "ci", identity.Operator, "*/*", "-")
	old, oldLine := newToken(t, "old", identity.Operator, "*/*", "expires=2020-01-01")
	foreign, _ := newToken(t, "ci", identity.Operator, "*/*", "-")
	a, _ := newGuardedAPI(t, storetest.Mini(t), line, oldLine)
	a.as(good)("GET", "/v1/services", "").want(200)
	a.secrets[old], a.secrets[foreign] = true, true
	const jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjaSJ9."
	answers := map[string]string{}
	for what, headers := range map[string]http.Header{
		"none":          {},
		"empty":         {"Authorization": {""}},
		"no token":      {"Authorization": {"Bearer "}},
		"expired":       {"Authorization": {"Bearer " + old}},
		"foreign":       {"Authorization": {"Bearer " + foreign}},
		"half":          {"Authorization": {"Bearer " + good[:len(good)-1]}},
		"longer":        {"Authorization": {"Bearer " + good + "a"}},
		"a JWT":         {"Authorization": {"Bearer " + jwt}},
		"its hash":      {"Authorization": {"Bearer " + line[strings.LastIndex(line, ":")+1:]}},
		"other scheme":  {"Authorization": {"Basic " + good}},
		"two":           {"Authorization": {"Bearer " + good, "Bearer " + good}},
		"of a proxy":    {"Proxy-Authorization": {"Bearer " + good}, "X-Forwarded-User": {"ci"}, "X-Remote-User": {"ci"}, "X-Forwarded-For": {"127.0.0.1"}},
		"another place": {"X-Authorization": {"Bearer " + good}, "Cookie": {"token=" + good}, "Portmaster-Token": {good}},
	} {
		request := "GET /v1/services HTTP/1.1\r\nHost: a\r\nX-Request-ID: 1\r\n"
		for name, values := range headers {
			for _, value := range values {
				request += name + ": " + value + "\r\n"
			}
		}
		r := a.raw(request + "\r\n")
		r.problem(401, codeUnauthenticated)
		equal(t, "WWW-Authenticate", r.header.Get("WWW-Authenticate"), "Bearer")
		r.header.Del("Date")
		answers[r.String()] = what
	}
	if len(answers) != 1 {
		t.Errorf("%d answers differ: %q", len(answers), answers)
	}
	a.as(good)("GET", "/v1/services?access_token=1", "").want(400) // a query is no way to send a token
	a.as(old)("GET", "/v1/nothing", "").want(404)
	a.do("GET", "/metrics", "").want(401)
}

// A token that is added works, one that is removed does not, without a restart; a broken file keeps those that were there.
func TestTokensChange(t *testing.T) {
	first, firstLine := newToken(t, "ci", identity.Operator, "*/*", "-")
	second, secondLine := newToken(t, "ci", identity.Operator, "*/*", "-")
	a, file := newGuardedAPI(t, storetest.Mini(t), firstLine)
	status := func(token string) int { return a.as(token)("GET", "/v1/services", "").status }
	equal(t, "the second token, before", status(second), 401)
	file.write(firstLine, secondLine)
	soon(t, "the second token works", func() bool { return status(second) == 200 })
	equal(t, "the first token, beside it", status(first), 200)
	file.write(secondLine)
	soon(t, "the first token is refused", func() bool { return status(first) == 401 })
	broken := func() string {
		metrics := a.as(second)("GET", "/metrics", "").want(200).body
		a.noSecretsIn("the metrics", metrics)
		contains(t, metrics, "\nportmaster_auth_open 0\n")
		_, value, _ := strings.Cut(metrics, "\nportmaster_auth_tokens_file_broken ")
		return value[:1]
	}
	equal(t, "broken, before", broken(), "0")
	file.write(firstLine, second+" is in the wrong place")
	soon(t, "the metric says that the file is broken", func() bool { return broken() == "1" })
	contains(t, a.log.String(), "the tokens file is broken")
	equal(t, "the second token, on a broken file", status(second), 200)
	equal(t, "the first token, on a broken file", status(first), 401)
	file.write(secondLine)
	soon(t, "the metric says that the file is good", func() bool { return broken() == "0" })
}

// A caller has its calls a second for itself, and all of its tokens share them.
func TestRate(t *testing.T) {
	one, oneLine := newToken(t, "one", identity.Reader, "*/*", "rate=1")
	same, sameLine := newToken(t, "one", identity.Reader, "*/*", "rate=1")
	other, otherLine := newToken(t, "other", identity.Reader, "*/*", "rate=1")
	a, _ := newGuardedAPI(t, storetest.Mini(t), oneLine, sameLine, otherLine)
	get := func(token, path string) answer { return a.as(token)("GET", path, "") }
	soon(t, "a call too many", func() bool { return get(one, "/v1/services").status == 429 })
	r := get(same, "/v1/pools")
	if r.status == 200 { // a second has passed
		r = get(one, "/v1/pools")
	}
	r.problem(429, codeRateLimited)
	equal(t, "Retry-After", r.header.Get("Retry-After"), "1")
	get(other, "/v1/services").want(200)
	get(one, "/livez").want(200)
	soon(t, "the next call", func() bool { time.Sleep(100 * time.Millisecond); return get(one, "/v1/services").status == 200 })
}

// An open server is only for those who call it by a name that it knows.
func TestHosts(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.Hosts = []string{"Ports.Example", "10.0.0.7", "fd00:0::7"} })
	ask := func(line, host string) answer {
		return a.raw(line + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.10:8080", "[::1]", "[::1]:8080", "[::ffff:127.0.0.1]:80",
		"ports.example", "PORTS.example:443", "10.0.0.7:8080", "[FD00::7]:8080"} {
		ask("GET /v1/services", host).want(200)
	}
	for _, host := range []string{"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "ports.example.evil", "evil.example:8080",
		"10.0.0.8", "0.0.0.0", "[::]", "[fd00::8]", "[", "[]", ":8080", "xlocalhost", "ports", "2130706433"} {
		if r := ask("GET /v1/services", host); r.status != 400 { // fasthttp finds some of them malformed
			r.problem(421, codeMisdirected)
		}
	}
	for path, status := range map[string]int{"/v1/pools": 421, "/metrics": 421, "/livez": 200, "/readyz": 200, "/openapi.yaml": 200} {
		ask("GET "+path, "evil.example").want(status)
	}
	ask("GET http://evil.example/v1/services", "localhost").problem(421, codeMisdirected)
	a.do("PUT", "/v1/services/django", `{"start":5000,"end":5009}`, "X-Forwarded-Host", "evil.example").want(201)
	ask("DELETE /v1/services/django", "evil.example").problem(421, codeMisdirected)
	a.service("django")
	contains(t, a.get("/metrics").body, "\nportmaster_auth_open 1\n")
}
