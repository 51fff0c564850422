package handlers

import (
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

// What leads to other paths has the prefix that a proxy says it took away, and nothing else that a header says.
func TestPrefix(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	longest := strings.Repeat("/abcdefg", 32)
	for header, want := range map[string]string{
		"/portmaster": "/portmaster", "/a/b-1/C_.~": "/a/b-1/C_.~", longest: longest, longest + "/a": "",
		"": "", "/": "", "portmaster": "", "/a/": "", "//evil.example": "", "/a//b": "", "/a/../b": "", "/..": "", "/./a": "", "/.a": "",
		"/a%2Fb": "", "/a b": "", "/a>": "", "/a?b": "", `/a\b`: "", "https://evil.example/a": "", "/a, /b": "", "/ä": "", "/a;b": "",
	} {
		do := func(method, path, body string) answer { return a.do(method, path, body, headerPrefix, header) }
		for _, base := range []string{"/v1", "/v1/pools/other"} {
			a.delete(base + "/services/web")
			r := do("POST", base+"/services", `{"name":"web","start":5000,"end":5009}`).want(201)
			equal(t, header, r.header.Get("Location"), want+base+"/services/web")
			r = do("POST", base+"/services/web/offers", `{"name":"a"}`).want(201)
			secret := read[offer](r).Secret
			equal(t, header, r.header.Get("Location"), want+base+"/services/web/offers/"+secret)
			r = do("POST", base+"/services/web/offers/"+secret+"/accept", "").want(201)
			equal(t, header, r.header.Get("Location"), want+base+"/services/web/ports/5000")
			r = do("POST", base+"/services/web/ports", `{"name":"b"}`).want(201)
			equal(t, header, r.header.Get("Location"), want+base+"/services/web/ports/5001")
			r = do("GET", base+"/services/web/ports?limit=1", "").want(200)
			equal(t, header, r.header.Get("Link"), "<"+want+base+`/services/web/ports?limit=1&cursor=5001>; rel="next"`)
			equal(t, "Vary", r.header.Get("Vary"), headerPrefix)
			a.delete(base + "/services/web/ports/5000").want(204)
			a.delete(base + "/services/web/ports/5001").want(204)
		}
	}
	twice := a.raw("PUT /v1/services/twice HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 25\r\n" +
		"X-Forwarded-Prefix: /a\r\nX-Forwarded-Prefix: /b\r\n\r\n{\"start\":6000,\"end\":6009}").want(201)
	equal(t, "two headers", twice.header.Get("Location"), "/v1/services/twice")
}
