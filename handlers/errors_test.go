package handlers

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

// An error in full.
func TestProblem(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	r := a.get("/v1/services/django", "X-Request-ID", "walk-7").want(404)
	equal(t, "Content-Type", r.header.Get("Content-Type"), "application/problem+json")
	equal(t, "body", r.body, `{"type":"urn:portmaster:problem:SERVICE_NOT_FOUND","title":"No such service","status":404,`+
		`"detail":"there is no service django","code":"SERVICE_NOT_FOUND","request_id":"walk-7"}`)
	r = a.get("/v1/services?limit=0", "X-Request-ID", "walk-8").want(400)
	equal(t, "body", r.body, `{"type":"urn:portmaster:problem:INVALID","title":"The request is malformed or out of bounds","status":400,`+
		`"detail":"the request is malformed or out of bounds","code":"INVALID","request_id":"walk-8",`+
		`"errors":[{"field":"limit","detail":"must be within 1-1000"}]}`)
}

func TestUnknownRoutes(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v2/services", "/V1/services", "/v1/Services", "/v1/services/", "/v1/pools/", "/v1/pools/a",
		"/v1/pools/a/", "/v1/pools//services", "/v1/services//offers", "/v1/services/django/", "/v1/services/django/offer",
		"/v1/services/django/offers/", "/v1/services/a/b/offers", "/v1/services/a%2Fb/c", "/livez/", "/metrics/x",
		"/%76%31/services", "//v1/services", "/v1/../v1/services", "/favicon.ico",
	} {
		a.get(path).problem(404, "NOT_FOUND")
		a.do("PATCH", path, `{}`).problem(404, "NOT_FOUND")
		a.do("BREW", path, `{}`).problem(404, "NOT_FOUND")
	}
}

// Every route refuses every method that it does not have, and says which it has.
func TestMethodNotAllowed(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	have := map[string][]string{}
	example := strings.NewReplacer(":service", "django", ":secret", uuid.NewString(), ":port", "5000")
	add := func(mount string, table []route) {
		for _, r := range table {
			path := mount + example.Replace(r.path)
			have[path] = append(have[path], r.method)
			if r.method == "GET" {
				have[path] = append(have[path], "HEAD")
			}
		}
	}
	add("", serverRoutes)
	add("/v1", poolRoutes)
	add("/v1/pools/host", poolRoutes)
	for path, methods := range have {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get"} {
			if slices.Contains(methods, method) {
				continue
			}
			r := a.do(method, path, "").want(405)
			if method != "HEAD" {
				r.problem(405, "METHOD_NOT_ALLOWED")
			}
			allow := strings.Split(r.header.Get("Allow"), ", ")
			slices.Sort(allow)
			slices.Sort(methods)
			equal(t, method+" "+path+": Allow", strings.Join(allow, " "), strings.Join(methods, " "))
		}
	}
}

// HEAD is answered as GET is, without the body.
func TestHead(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	a.accept(a.offer("django", "web-01"))
	for _, path := range []string{"/livez", "/v1/services/django", "/v1/services/django/ports/5000", "/v1/services/flask", "/v1/nothing"} {
		get, head := a.get(path, "X-Request-ID", "1"), a.do("HEAD", path, "", "X-Request-ID", "1")
		get.header.Del("Date")
		head.header.Del("Date")
		var want, got bytes.Buffer
		get.header.Write(&want)
		head.header.Write(&got)
		equal(t, path, got.String(), want.String())
		equal(t, path, head.want(get.status).body, "")
	}
}

// A connection that was opened ahead of need, and on which no request came in time, is closed without a word: what the
// server said there would be taken for the answer to the first request.
func TestIdleConnectionIsClosedInSilence(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.ReadTimeout = 200 * time.Millisecond })
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	said, err := io.ReadAll(conn)
	if err != nil || len(said) > 0 {
		t.Errorf("the server says %q, %v", said, err)
	}
}

// What is no HTTP, or none that the server takes.
func TestMalformedRequests(t *testing.T) {
	a := newAPI(t, storetest.Mini(t), func(s *settings) { s.server.ReadTimeout = 200 * time.Millisecond })
	a.raw("nonsense\r\n\r\n").invalid("request")
	a.raw("PUT /v1/services/django HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n").invalid("request")
	a.raw("GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: "+strings.Repeat("x", 9<<10)+"\r\n\r\n").problem(413, "TOO_LARGE")
	a.raw("GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ").problem(408, "TIMEOUT")
	for _, name := range []string{"dj%zz", "django%", "django%2", "%%36%34jango"} {
		a.raw("GET /v1/services/" + name + " HTTP/1.1\r\nHost: a\r\n\r\n").invalid("service")
	}
	a.get("/livez").want(200)
}

// A handler that panics answers as any other error does, and the server lives on.
func TestPanic(t *testing.T) {
	log := &logs{}
	// Without an allocator, every call on one panics.
	a := serve(t, storetest.Store{}, New(nil, Options{
		ReadTimeout: time.Second, WriteTimeout: time.Second, IdleTimeout: time.Second, BodyLimit: 1 << 10, Concurrency: 10,
		SlowCall: time.Minute, Log: slog.New(slog.NewTextHandler(log, nil)),
	}), log)
	secret := uuid.NewString()
	for range 2 {
		p := a.get("/v1/services/django/offers/"+secret).problem(500, "INTERNAL")
		contains(t, log.String(), p.RequestID, "panic: ", "readOffer", "handlers/offers.go")
		for _, inside := range []string{"nil", "panic", "pointer", ".go"} {
			if strings.Contains(p.Detail, inside) {
				t.Errorf("the detail %q says %q", p.Detail, inside)
			}
		}
	}
	a.put("/v1/services/django", `{"start":5000,"end":5001}`).problem(500, "INTERNAL")
	a.get("/livez").want(200)
}

// What is in Redis and no record of this program's is an internal error: the log says what, the caller does not hear it.
func TestForeignRecords(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		key := store.Prefix + ":{default}:service:django"
		if err := store.Admin.HSet(t.Context(), key, "start", "soon").Err(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/v1/services/django", "/v1/services", "/v1/services/django/ports"} {
			p := a.get(path).problem(500, "INTERNAL")
			contains(t, a.log.String(), p.RequestID, "the record of service django in Redis is malformed")
		}
		if err := store.Admin.Set(t.Context(), key, "none", 0).Err(); err != nil {
			t.Fatal(err)
		}
		p := a.post("/v1/services/django/offers", `{"name":"web-01"}`).problem(500, "INTERNAL")
		contains(t, a.log.String(), p.RequestID, "WRONGTYPE")
	})
}

// Secrets are in the answers to who asked for them and nowhere else, whatever goes wrong. (The client of all tests looks
// for them in every list, problem and log.)
func TestSecretsStaySecret(t *testing.T) {
	store, stop, _ := storetest.Private(t)
	a := newAPI(t, store, func(s *settings) { s.server.SlowCall = 1 })
	a.define("django", "5000-5009")
	a.define("flask", "6000-6009")
	accepted, rejected, open := a.offer("django", "web-01"), a.offer("django", "web-02"), a.offer("django", "web-03")
	a.accept(accepted)
	a.delete(rejected.path()).want(204)
	claimed := a.claim("django", `{"name":"web-05"}`)
	secrets := []string{claimed.Secret, accepted.Secret, rejected.Secret, open.Secret, uuid.NewString()}
	everywhere := func() {
		for _, secret := range secrets {
			for _, where := range []string{"/v1/services/django", "/v1/services/flask", "/v1/services/nobody", "/v1/services/-", "/v1/pools/other/services/django"} {
				path := where + "/offers/" + secret
				a.get(path)
				a.get(path + "x").want(400)
				a.get(path + "/x").want(404)
				a.do("PATCH", path, "").want(405)
				a.do("BREW", path, "")
				a.put(path, `{"secret":"`+secret+`"}`).want(400)
				a.put(path, secret).want(400)
				a.put(path, `{"`+secret+`":1}`, "Content-Type", "text/plain").want(415)
				a.post(where+"/offers", `{"name":"web-04","secret":"`+secret+`x"}`).want(400)
				a.post(where+"/offers", `{"name":"web-04","secret":["`+secret+`"]}`).want(400)
				a.post(where+"/offers", `{"name":"web-04","secret":"`+secret).want(400)
				a.post(where+"/offers", `{"name":"","secret":"`+secret+`"}`).want(400)
				a.post(where+"/offers", `[{"name":"web-04"},{"name":"","secret":"`+secret+`"}]`).want(400)
				a.post(where+"/ports", `{"name":"web-04","secret":"`+secret+`x"}`).want(400)
				a.post(where+"/ports?wait="+secret, `{"name":"web-04"}`).want(400)
				a.post(where+"/ports/web-01/renew", `{"secret":"`+secret+`x"}`).want(400)
				a.delete(where+"/ports/web-01", "Portmaster-Secret", secret+"x").want(400)
				a.delete(where+"/ports/nobody", "Portmaster-Secret", secret)
				a.post(where+"/ports/web-99/renew", `{"secret":"`+secret+`","lease":60}`)
				a.get(where + "/ports?cursor=" + secret).want(400)
			}
			a.post("/v1/services/flask/offers", `{"name":"web-04","secret":"`+secret+`"}`)
			a.post("/v1/services/django/offers", `[{"name":"web-06"},{"name":"web-04","secret":"`+secret+`"}]`)
			a.post("/v1/services/django/ports", `[{"name":"web-06"},{"name":"web-04","secret":"`+secret+`"}]`)
			a.post("/v1/services/flask/ports?wait=0", `{"name":"web-04","secret":"`+secret+`"}`)
			a.post("/v1/services/django/ports/web-05/renew", `{"secret":"`+secret+`","lease":3600}`)
			a.delete("/v1/services/django/ports/web-01", "Portmaster-Secret", uuid.NewString()).problem(403, "SECRET_MISMATCH")
		}
		a.get("/v1/services/django/offers")
		a.get("/v1/services/django/ports")
		a.get("/v1/services")
		a.noSecretsIn("/metrics", a.get("/metrics").want(200).body)
	}
	everywhere()

	// A record of another kind under the secret's key.
	key := store.Prefix + ":{default}:offer:" + open.Secret
	if err := store.Admin.Del(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	if err := store.Admin.HSet(t.Context(), key, "secret", open.Secret).Err(); err != nil {
		t.Fatal(err)
	}
	a.get(open.path()).problem(500, "INTERNAL")
	a.put(open.path(), "").problem(500, "INTERNAL")

	// Of slow calls one a second is logged: here the one with a secret in its path.
	b := newAPI(t, store, func(s *settings) { s.server.SlowCall = 1 })
	b.get(rejected.path()).problem(409, "OFFER_REJECTED")
	contains(t, b.log.String(), "slow call", "/v1/services/:service/offers/:secret")

	stop()
	a.get(open.path()).problem(503, "UNAVAILABLE")
	a.put(open.path(), "").problem(503, "UNAVAILABLE")
	a.noSecretsIn("/metrics", a.get("/metrics").want(200).body)
	contains(t, a.log.String(), "slow call", "internal error", "call failed")
	equal(t, "secrets known", len(a.secrets) >= len(secrets), true)
}
