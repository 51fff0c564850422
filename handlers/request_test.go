package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"portmaster/allocator"
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

// Parts of a path are never unescaped.
func TestNamesInPaths(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	longest := strings.Repeat("a", 64)
	for i, good := range []string{"a", "7", "A.b_c-d", "1024", "a..b", longest} {
		a.define(good, fmt.Sprintf("%d-%d", 5000+i, 5000+i))
		equal(t, "name", read[service](a.get("/v1/services/"+good)).Name, good)
	}
	a.define("django", "6000-6009")
	for _, bad := range []string{
		"%64jango", "django%20", "django%00", "djang%6F", "django%2F", "dj%C3%A4ngo", "djängo", "-django", "django-", ".", "..",
		"_", "a:b", "a@b", "a*", "a;b", "a,b", "a+b", "a~b", "a{b}", longest + "a",
	} {
		a.get("/v1/services/" + bad).invalid("service")
		a.get("/v1/services/" + bad + "/offers").invalid("service")
		a.post("/v1/services/"+bad+"/offers", `{"name":"web-01"}`).invalid("service")
		a.put("/v1/services/"+bad, `{"start":7000,"end":7009}`).invalid("name")
	}
	for _, good := range []string{"a", "1a", "a1", "1.0", "10.0.0.1", "1_1", longest} {
		a.accept(a.offer("django", good))
		equal(t, "name", read[allocation](a.get("/v1/services/django/ports/"+good)).Name, good)
	}
	for _, bad := range []string{"", " a", "a ", "5000", "0", "-1", "a\\tb", "a\\u0000", "ä", "a/b", "a{b}", longest + "a"} {
		a.post("/v1/services/django/offers", `{"name":"`+bad+`"}`).invalid("name")
	}
}

func TestPageOfAList(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	a.define("django", "5000-5009")
	for _, list := range []string{"/v1/services", "/v1/services/django/offers", "/v1/services/django/ports"} {
		for _, limit := range []string{"1", "1000"} {
			equal(t, "Link", a.get(list+"?limit="+limit).want(200).header.Get("Link"), "")
		}
		for _, limit := range []string{"0", "-1", "1001", "1.5", "ten", "0x10", "99999999999999999999"} {
			a.get(list + "?limit=" + limit).invalid("limit")
		}
		for _, cursor := range []string{"-1", "x", "5000.5", "99999999999999999999"} {
			a.get(list + "?cursor=" + cursor).invalid("cursor")
		}
		a.get(list+"?limit=0&cursor=x").invalid("cursor", "limit")
	}
	a.get("/v1/pools?limit=0").invalid("limit")
	a.get("/v1/pools?limit=1001").invalid("limit")
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

// FuzzDecode: the decoder never panics, every fault names a field, and what it takes it has understood as the standard
// library does.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"name":"django","description":"web","start":5000,"end":10000}`, `{"name":null}`, `{"":1}`,
		`{"name":"a","name":"b"}`, `{"name":"a"}x`, "{\"name\":\"\xff\"}", `{"start":1e3}`, `{"start":-0}`, `{"a":{"b":[1]}}`,
		`{"n\u0061me":"\ud83d\ude00"}`, `{"description":"\u0000"}`, `{"a/b":1}`, `{"end":9223372036854775808}`, `{"start":[]}`,
		`{"cooldown":1.5}`, `{"cooldown":"1h30m"}`, `{"cooldown":-0.000000001}`, `{"cooldown":1e9}`, `{"cooldown":null}`,
	} {
		f.Add("application/json", []byte(seed))
	}
	f.Add("application/json; charset=utf-8", []byte(`{}`))
	f.Add("text/plain", []byte(`{}`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		read := func(contentType string, body []byte) (d definition, err error) {
			looked(t, contentType, body, func(c *fiber.Ctx) { err = decode(c, &d) })
			return d, err
		}
		d, err := read(contentType, body)
		if err != nil {
			refused(t, body, err)
			return
		}
		var standard struct {
			Name, Description string
			Start, End        int
			Cooldown          any
		}
		if err := json.Unmarshal(body, &standard); err != nil || !sameSpan(time.Duration(d.Cooldown), standard.Cooldown) ||
			d != (definition{standard.Name, standard.Description, standard.Start, standard.End, d.Cooldown}) {
			t.Errorf("%q: %+v, and by the standard library %+v (%v)", body, d, standard, err)
		}
		again, err := json.Marshal(map[string]any{
			"name": d.Name, "description": d.Description, "start": d.Start, "end": d.End, "cooldown": time.Duration(d.Cooldown).String(),
		})
		if err != nil {
			t.Fatal(err)
		}
		if repeated, err := read("application/json", again); err != nil || repeated != d {
			t.Errorf("%q: %+v, encoded again %+v (%v)", body, d, repeated, err)
		}
	})
}

// FuzzDecodeWants: the same of what is wanted, one or a list. What is 0 where it is given is out of bounds to the allocator.
func FuzzDecodeWants(f *testing.F) {
	for _, seed := range []string{
		``, ` `, `[`, `[]`, `{}`, `{"name":"web-01"}`, ` [ {"name":"a"} , {"name":"b","secret":"c"} ]`, `[null]`, `[[]]`, `[{"a":[{"b":1}]}]`,
		`{"lease":90,"port":5000,"prefer":5001,"count":2}`, `[{"lease":"1m"},{"lease":0.5},{"lease":0}]`, `{"port":0,"prefer":0,"count":0}`,
		`{"0":1}`, `[{"0":1}]`, `[{"":1}]`, `[{"port":null}]`, `[1,2]`, `[{}] []`, `{"lease":1e400}`, `{"lease":"9999999999999h"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var one allocator.Want
		var wants []allocator.Want
		var err error
		looked(t, "application/json", body, func(c *fiber.Ctx) { one, wants, err = decodeWants(c) })
		if err != nil {
			refused(t, body, err)
			return
		}
		type want struct {
			Name, Secret        string
			Lease               any
			Port, Prefer, Count *int
		}
		var standard []want
		if wants == nil {
			wants, standard = []allocator.Want{one}, make([]want, 1)
			err = json.Unmarshal(body, &standard[0])
		} else {
			err = json.Unmarshal(body, &standard)
		}
		if err != nil || len(wants) != len(standard) {
			t.Fatalf("%q: %+v, and by the standard library %+v (%v)", body, wants, standard, err)
		}
		for i, s := range standard {
			zero := s.Lease != nil && wants[i].Lease == -1 && sameSpan(0, s.Lease)
			same := wants[i] == allocator.Want{
				Name: s.Name, Secret: s.Secret, Lease: wants[i].Lease, Port: given(s.Port), Prefer: given(s.Prefer), Count: given(s.Count),
			}
			if !same || !zero && !sameSpan(wants[i].Lease, s.Lease) {
				t.Errorf("%q: %+v, and by the standard library %+v", body, wants[i], s)
			}
		}
	})
}

// looked lets a function look at a request as a handler does.
func looked(t *testing.T, contentType string, body []byte, look func(c *fiber.Ctx)) {
	t.Helper()
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.Header.SetContentType(contentType)
	ctx.Request.SetBody(body)
	app := fiber.New()
	c := app.AcquireCtx(ctx)
	defer app.ReleaseCtx(c)
	look(c)
}

// refused holds the refusal of a body against what every one must have.
func refused(t *testing.T, body []byte, err error) {
	t.Helper()
	if invalid, ok := errors.AsType[*allocator.Error](err); ok {
		if invalid.Code != allocator.CodeInvalid || len(invalid.Fields) == 0 || invalid.Fields[0].Field == "" || invalid.Fields[0].Detail == "" {
			t.Errorf("%q: %#v", body, invalid)
		}
	} else if media, ok := errors.AsType[*fiber.Error](err); !ok || media.Code != 415 {
		t.Errorf("%q: %v", body, err)
	}
}

// sameSpan reports whether a duration is what the standard library reads where it stands in JSON: a number of seconds, a
// text, or nothing.
func sameSpan(got time.Duration, standard any) bool {
	switch value := standard.(type) {
	case nil:
		return got == 0
	case float64:
		return math.Abs(got.Seconds()-value) <= 1e-9+math.Abs(value)*1e-12
	case string:
		span, err := time.ParseDuration(value)
		return err == nil && span == got
	}
	return false
}
