package handlers

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"

	"portmaster/allocator/storetest"
)

// Bodies are read strictly, and each fault names its field.
func TestStrictJSON(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for _, test := range []struct{ what, body, field string }{
		{"an unknown field", `{"name":"a","start":5000,"end":5001,"color":"red"}`, "color"},
		{"another case", `{"Name":"a","start":5000,"end":5001}`, "Name"},
		{"a field twice", `{"name":"a","start":5000,"end":5001,"name":"a"}`, "name"},
		{"a field twice, once escaped", `{"name":"a","start":5000,"end":5001,"n\u0061me":"b"}`, "name"},
		{"a long unknown field", `{"` + strings.Repeat("x", 50000) + `":1}`, strings.Repeat("x", 64)},
		{"an unknown field with a slash", `{"a/b":1}`, "a/b"},
		{"an unknown field without a name", `{"":1}`, "body"},
		{"trailing data", `{"name":"a","start":5000,"end":5001}{}`, "body"},
		{"a trailing comma", `{"name":"a","start":5000,"end":5001,}`, "body"},
		{"a comment", `{"name":"a","start":5000,"end":5001}//`, "body"},
		{"half a body", `{"name":"a","start":5000,`, "body"},
		{"white space", ` `, "body"},
		{"an array", `[]`, "body"},
		{"a string", `"name"`, "body"},
		{"null", `null`, "body"},
		{"a byte order mark", "\ufeff" + `{"name":"a","start":5000,"end":5001}`, "body"},
		{"UTF-16", "{\x00\"\x00", "body"},
		{"a number for a name", `{"name":5,"start":5000,"end":5001}`, "name"},
		{"null for a name", `{"name":null,"start":5000,"end":5001}`, "name"},
		{"null for a description", `{"name":"a","description":null,"start":5000,"end":5001}`, "description"},
		{"an object for a name", `{"name":{"a":1},"start":5000,"end":5001}`, "name"},
		{"a string for a port", `{"name":"a","start":"5000","end":5001}`, "start"},
		{"a fraction", `{"name":"a","start":5000.5,"end":5001}`, "start"},
		{"a minus", `{"name":"a","start":-5000,"end":5001}`, "start"},
		{"a fraction that is whole", `{"name":"a","start":5000,"end":5001.0}`, "end"},
		{"an exponent", `{"name":"a","start":5e3,"end":5001}`, "start"},
		{"a huge number", `{"name":"a","start":99999999999999999999,"end":5001}`, "start"},
		{"null for a port", `{"name":"a","start":5000,"end":null}`, "end"},
		{"a leading zero", `{"name":"a","start":05000,"end":5001}`, "body"},
		{"true", `{"name":"a","start":true,"end":5001}`, "start"},
		{"broken UTF-8", "{\"name\":\"a\xff\",\"start\":5000,\"end\":5001}", "name"},
		{"broken UTF-8 in a description", "{\"name\":\"a\",\"description\":\"\xc3\",\"start\":5000,\"end\":5001}", "description"},
		{"half a surrogate pair", `{"name":"a","description":"\ud800","start":5000,"end":5001}`, "description"},
		{"a line break in a string", "{\"name\":\"a\",\"description\":\"a\nb\",\"start\":5000,\"end\":5001}", "description"},
		{"depth", `{"name":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "name"},
		{"depth of an unknown field", `{"a":` + strings.Repeat(`{"a":`, 9000) + `1` + strings.Repeat("}", 9000) + `}`, "a"},
	} {
		t.Run(test.what, func(t *testing.T) {
			a.t = t
			r := a.post("/v1/services", test.body)
			r.problem(400, "INVALID")
			r.invalid(test.field)
		})
	}
	a.t = t
	a.post("/v1/services", "").want(415)
	a.post("/v1/services", "", "Content-Type", "application/json").invalid("body")
	equal(t, "services", a.get("/v1/services").body, "[]")

	a.define("django", "5000-5009")
	a.post("/v1/services/django/offers", `{"name":"web-01","secret":null}`).invalid("secret")
	a.post("/v1/services/django/offers", `{"name":"web-01","ports":5000}`).invalid("ports")
	o := a.offer("django", "web-01")
	a.put(o.path(), `null`).invalid("body")
	a.put(o.path(), `[]`).invalid("body")
	a.put(o.path(), `{} {}`).invalid("body")
	a.put(o.path(), `{}`).want(201)
}

// White space and the order of fields are free.
func TestLenientWhereItMay(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.post("/v1/services", "\r\n\t {\"end\": 5009 ,\n\"start\":5000, \"n\\u0061me\":\"dj\\u0061ngo\" } \n").want(201)
	a.get("/v1/services/django").want(200)
}

func TestContentType(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	o := a.offer("django", "web-01")
	const definition = `{"start":5000,"end":5009}`
	for _, good := range []string{"application/json", "Application/JSON", "application/json; charset=utf-8", `application/json;charset="UTF-8"`} {
		a.put("/v1/services/django", definition, "Content-Type", good).want(200)
	}
	for _, bad := range []string{
		"", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/xml", "application/jsonx",
		"application/json-patch+json", "application/json, text/plain", "application/json; charset=latin1",
	} {
		for _, r := range []request{
			{"POST", "/v1/services", `{"name":"flask","start":6000,"end":6001}`},
			{"PUT", "/v1/services/django", definition},
			{"POST", "/v1/services/django/offers", `{"name":"web-02"}`},
			{"PUT", o.path(), "{}"},
			{"POST", o.path() + "/accept", "{}"},
			{"DELETE", o.path(), "{}"},
			{"POST", o.path() + "/reject", "{}"},
			{"DELETE", "/v1/services/django/ports/5000", "{}"},
		} {
			a.do(r.method, r.path, r.body, "Content-Type", bad).problem(415, "UNSUPPORTED_MEDIA_TYPE")
			a.do(r.method, r.path, r.body, "Content-Encoding", "gzip").problem(415, "UNSUPPORTED_MEDIA_TYPE")
		}
	}
	for _, encoding := range []string{"deflate", "br", "identity", "nonsense"} {
		a.put("/v1/services/django", definition, "Content-Encoding", encoding).problem(415, "UNSUPPORTED_MEDIA_TYPE")
	}
	equal(t, "nothing was done", read[service](a.get("/v1/services/django")).Ports, ports{Total: 10, Free: 9, Offered: 1})
	a.put(o.path(), "", "Content-Type", "text/plain").want(201) // of no body the type says nothing
}

func TestBodyLimit(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	body := `{"name":"django","start":5000,"end":5009}`
	fits := body + strings.Repeat(" ", 64<<10-len(body))
	a.post("/v1/services", fits).want(201)

	// One that is longer is refused before it is read: what of it was sent would reset the connection, with the answer.
	head := "POST /v1/services HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	a.raw(head+fmt.Sprintf("Content-Length: %d\r\n\r\n", len(fits)+1)).problem(413, "TOO_LARGE")

	// A body that does not say how long it is.
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n"
	small := `{"name":"flask","start":6000,"end":6009}`
	a.raw(fmt.Sprintf("%s%x\r\n%s\r\n0\r\n\r\n", chunked, len(small), small)).want(201)
	a.raw(fmt.Sprintf("%s%x\r\n", chunked, len(fits)+1)).problem(413, "TOO_LARGE")
}

// Parts of a path are unescaped where that changes nothing.
func TestNamesInPaths(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	longest := strings.Repeat("a", 64)
	for i, good := range []string{"a", "7", "A.b_c-d", "1024", "a..b", longest} {
		a.define(good, fmt.Sprintf("%d-%d", 5000+i, 5000+i))
		equal(t, "name", read[service](a.get("/v1/services/"+good)).Name, good)
	}
	a.define("django", "6000-6009")
	for _, bad := range []string{
		"django%20", "django%00", "django%2F", "dj%C3%A4ngo", "django%7E", "%2Edjango", "%252D", "djängo", "-django", "django-", ".", "..",
		"_", "a:b", "a@b", "a*", "a;b", "a,b", "a+b", "a~b", "a{b}", longest + "a",
	} {
		a.get("/v1/services/" + bad).invalid("service")
		a.get("/v1/services/" + bad + "/offers").invalid("service")
		a.post("/v1/services/"+bad+"/offers", `{"name":"web-01"}`).invalid("service")
		a.put("/v1/services/"+bad, `{"start":7000,"end":7009}`).invalid("name")
	}
	for _, good := range []string{"%64jango", "djang%6F", "djang%6f", "%64%6A%61%6E%67%6F"} {
		equal(t, "name", read[service](a.get("/v1/services/"+good).want(200)).Name, "django")
	}
	// What an answer says of where things are, it says in plain characters.
	r := a.put("/v1/pools/h%6Fst/services/we%62", `{"start":5000,"end":5009}`).want(201)
	equal(t, "Location", r.header.Get("Location"), "/v1/pools/host/services/web")
	for _, name := range []string{"web-01", "web-02"} {
		r = a.post("/v1/pools/h%6Fst/services/we%62/ports", `{"name":"`+name+`"}`).want(201)
	}
	equal(t, "Location", r.header.Get("Location"), "/v1/pools/host/services/web/ports/5001")
	r = a.get("/v1/pools/h%6Fst/services/we%62/ports?limit=1").want(200)
	equal(t, "Link", r.header.Get("Link"), `</v1/pools/host/services/web/ports?limit=1&cursor=5001>; rel="next"`)
	equal(t, "name", read[allocation](a.get("/v1/pools/host/services/web/ports/web%2D02").want(200)).Name, "web-02")
	a.get("/v1/pools/h%20st/services/web").invalid("pool")

	longest = strings.Repeat("a", 128)
	for _, good := range []string{"a", "1a", "1.0", "10.0.0.1", "1_1", "feature/x", "a:b@c", "a+b=c~d", "a/../b", "a//b", longest} {
		held := a.accept(a.offer("django", good))
		for _, path := range []string{url.PathEscape(held.Name), strings.ReplaceAll(url.QueryEscape(held.Name), "+", "%2B")} {
			equal(t, "name", read[allocation](a.get("/v1/services/django/ports/"+path)).Name, held.Name)
		}
		equal(t, "by name", len(read[[]allocation](a.get("/v1/services/django/ports?name="+url.QueryEscape(held.Name)))), 1)
		a.delete("/v1/services/django/ports/" + url.PathEscape(held.Name)).want(204)
	}
	for _, bad := range []string{"", " a", "a ", "-1", "a\\tb", "a\\u0000", "ä", "a/", "/a", "a{b}", "a%2Fb", longest + "a"} {
		a.post("/v1/services/django/offers", `{"name":"`+bad+`"}`).invalid("name")
	}
	for _, bad := range []string{"a%252Fb", "a%2F", "%2Fa", "a%00b", "a%0Ab", "a%22b", "a%7Bb", "a%5Cb", "a%C3%A4b"} {
		a.get("/v1/services/django/ports/" + bad).invalid("port")
	}
	a.get("/v1/services/django/ports/a/b").problem(404, "NOT_FOUND")
}

func TestPageOfAList(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	for _, list := range []string{"/v1/services", "/v1/services/django/offers", "/v1/services/django/ports"} {
		for _, limit := range []string{"1", "1000"} {
			equal(t, "Link", a.get(list+"?limit="+limit).want(200).header.Get("Link"), "")
		}
		for _, limit := range []string{"", "0", "-1", "1001", "1.5", "ten", "0x10", "99999999999999999999", "05", "%2B5", "5.0", "5e0", "%205"} {
			a.get(list + "?limit=" + limit).invalid("limit")
		}
		for _, cursor := range []string{"", "-1", "x", "5000.5", "99999999999999999999"} {
			a.get(list + "?cursor=" + cursor).invalid("cursor")
		}
		a.get(list+"?limit=0&cursor=x").invalid("cursor", "limit")
	}
	a.get("/v1/pools?limit=0").invalid("limit")
	a.get("/v1/pools?limit=1001").invalid("limit")
}

// Queries are as strict as bodies: what a route does not take, or takes once, is not passed over.
func TestStrictQuery(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	const claim, offer, list = "/v1/services/django/ports", "/v1/services/django/offers", "/v1/pools/default/services"
	for _, test := range []struct{ method, path, fields string }{
		{"POST", claim + "?dry_run=true", "dry_run"},
		{"POST", claim + "?wiat=5s", "wiat"},
		{"POST", claim + "?Wait=5s", "Wait"},
		{"POST", claim + "?wait=1&wait=2", "wait"},
		{"POST", claim + "?wait=1&%77ait=1", "wait"},
		{"POST", claim + "?wait", "wait"},
		{"POST", claim + "?wait=", "wait"},
		{"POST", claim + "?wait=1&limit=5", "limit"},
		{"POST", claim + "?z&wait=1&wait=1&a=1", "a wait z"},
		{"POST", claim + "?wait=1;dry_run=true", "query"},
		{"POST", claim + "?wait=%zz", "query"},
		{"POST", claim + "?=1", "query"},
		{"POST", claim + "?" + strings.Repeat("x", 1000), strings.Repeat("x", 64)},
		{"POST", offer + "?wait=1&wait=1", "wait"},
		{"GET", list + "?prefix=x", "prefix"},
		{"HEAD", list + "?prefix=x", ""},
		{"GET", list + "?limit=1&limit=1", "limit"},
		{"GET", list + "?wait=1", "wait"},
		{"GET", claim + "?limit=1&cursor=&prefix=x", "cursor prefix"},
		{"GET", "/v1/pools?prefix=x", "prefix"},
		{"GET", "/v1/services/django?fields=name", "fields"},
		{"PUT", "/v1/services/django?force=1", "force"},
		{"POST", "/v1/services?force=1", "force"},
		{"DELETE", "/v1/services/django?force=1", "force"},
		{"DELETE", claim + "/web-01?force=1", "force"},
		{"POST", claim + "/web-01/renew?lease=1", "lease"},
		{"PUT", offer + "/" + uuid.NewString() + "?lease=1", "lease"},
	} {
		r := a.do(test.method, test.path, `{"name":"web-01"}`).want(400)
		if test.method != "HEAD" {
			r.invalid(strings.Fields(test.fields)...)
		}
	}
	equal(t, "ports", a.service("django").Ports, ports{Total: 10, Free: 10})
	for _, none := range []string{"?", "?&"} {
		a.get(list + none).want(200)
	}
	// Of those that are for Prometheus and load balancers nobody knows what they add.
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/openapi.yaml"} {
		a.get(path + "?name%5B%5D=up&name%5B%5D=down&verbose").want(200)
	}
}

// A list that is too long is refused by its length, before all of it is decoded.
func TestLongListIsRefusedEarly(t *testing.T) {
	full, over := "["+strings.Repeat(`{},`, 99)+"{}]", "["+strings.Repeat(`{},`, 20000)+"{}]"
	took := func(body string) time.Duration {
		best := time.Hour
		for range 50 {
			looked(t, "application/json", []byte(body), func(c *fiber.Ctx) {
				began := time.Now()
				decodeRequests(c, isList(c.Request().Body()))
				best = min(best, time.Since(began))
			})
		}
		return best
	}
	looked(t, "application/json", []byte(over), func(c *fiber.Ctx) {
		_, err := decodeRequests(c, isList(c.Request().Body()))
		refused(t, []byte(over), err)
	})
	if one, other := took(full), took(over); other > 5*one {
		t.Errorf("100 wants take %s, 20,000 take %s", one, other)
	}
	a := newAPI(t, storetest.Mini(t))
	for _, route := range routesOfRequests {
		for _, body := range []string{over, strings.Replace(over, "{}]", "broken", 1), strings.Replace(over, "{}]", `{"ttl":1}]`, 1)} {
			a.post(route, body).invalid("body")
		}
		a.post(route, strings.Replace(full, "{}]", "{},", 1)).invalid("body")
	}
}

func TestRequestID(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for _, path := range []string{"/livez", "/v1/services/django", "/nothing"} {
		for _, good := range []string{"1", "abc-123", uuid.NewString(), "~!@#$%^&*()", `"quoted\"`, strings.Repeat("x", 128)} {
			equal(t, "X-Request-ID", a.get(path, "X-Request-ID", good).header.Get("X-Request-ID"), good)
		}
		seen := map[string]bool{}
		for _, bad := range []string{"", "a b", "a\tb", "ä", strings.Repeat("x", 129)} {
			id := a.get(path, "X-Request-ID", bad).header.Get("X-Request-ID")
			if uuid.Validate(id) != nil || seen[id] {
				t.Errorf("X-Request-ID %q for %q: not a new UUID", id, bad)
			}
			seen[id] = true
		}
	}
	p := a.get("/v1/services/django", "X-Request-ID", `"<&`).problem(404, "SERVICE_NOT_FOUND")
	equal(t, "request_id", p.RequestID, `"<&`)
}

// The history of a service has the id of a request if others know it: it came with the request, or the audit has it, too.
func TestRequestIDInTheHistory(t *testing.T) {
	lines, audited := auditing(false)
	for name, change := range map[string]func(*settings){"no audit": func(*settings) {}, "audit": audited} {
		store := storetest.Mini(t)
		a := newAPI(t, store, change, func(s *settings) { s.allocator.History = 100 })
		a.post("/v1/services", `{"name":"web","start":5000,"end":5009}`, "X-Request-ID", "r1").want(201)
		a.post("/v1/services/web/ports", `{"name":"ann"}`, "X-Request-ID", "r2").want(201)
		a.do("DELETE", "/v1/services/web/ports/ann", "", "X-Request-ID", "r3").want(204)
		generated := a.post("/v1/services/web/ports", `{"name":"bob"}`).want(201).header.Get("X-Request-ID")
		known := generated
		if name == "no audit" {
			known = ""
		} else if !strings.Contains(lines.String(), generated) {
			t.Error("the audit does not have the id")
		}
		events, err := store.Admin.XRange(t.Context(), store.Prefix+":{default}:events:web", "-", "+").Result()
		if err != nil || len(events) != 4 {
			t.Fatalf("%s: %d events, %v", name, len(events), err)
		}
		for i, want := range []string{"r1", "r2", "r3", known} {
			got, _ := events[i].Values["request"].(string)
			equal(t, name+": "+fmt.Sprint(events[i].Values["event"]), got, want)
		}
	}
}
