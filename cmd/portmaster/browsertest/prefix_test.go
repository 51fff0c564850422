package browsertest

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// Behind a proxy that puts a prefix before all paths, the pages find their files, the API and each other.
func TestPagesBehindPrefix(t *testing.T) {
	s := startServer(t)
	s.call("POST", "/v1/services", `{"name":"web","start":5000,"end":5003}`)
	target, err := url.Parse(s.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/ports/", http.StripPrefix("/ports", httputil.NewSingleHostReverseProxy(target)))
	proxy := httptest.NewServer(mux)
	t.Cleanup(proxy.Close) // after the page, which would miss it
	behind := &server{t: t, addr: strings.TrimPrefix(proxy.URL, "http://")}

	p := open(t, behind, "/ports/docs") // which leads to /ports/docs/
	try(p, "listServices", "200")
	if text := answerOf(p, "listServices"); !strings.Contains(text, `"name": "web"`) {
		t.Errorf("the page shows %s", text)
	}
	eval[any](p, `document.querySelector("nav a").click(); null`)
	p.await(`location.pathname === "/ports/ui/" && document.readyState === "complete"`)
	p.live()
}
