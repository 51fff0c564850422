package handlers

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"portmaster/allocator/storetest"
	"portmaster/handlers/identity"
)

// get asks for a part of a page, which no document describes.
func getPage(t *testing.T, a *api, method, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+a.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = path // as it is
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	request.Host = request.Header.Get("Host")
	response, err := a.client.Transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// Every file of every page is served as what it is, to everybody, under a policy that keeps everything else out; and not again to a
// browser that has it.
func TestPages(t *testing.T) {
	_, line := newToken(t, "ci", identity.Operator, "*/*", "-")
	guarded, _ := newGuardedAPI(t, storetest.Mini(t), line)
	for name, a := range map[string]*api{"open": newAPI(t, storetest.Mini(t)), "guarded": guarded} {
		for _, page := range webPages() {
			for _, f := range page.files {
				path := page.path + "/" + f.name
				r, body := getPage(t, a, "GET", path, "Host", "another.example")
				if r.StatusCode != 200 || body != string(f.plain()) || body == "" {
					t.Errorf("%s %s: %d with %d bytes", name, path, r.StatusCode, len(body))
				}
				for header, part := range map[string]string{
					"Content-Type": f.contentType, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
					"Content-Security-Policy": "default-src 'self'; ", "Cross-Origin-Opener-Policy": "same-origin",
				} {
					if !strings.Contains(r.Header.Get(header), part) {
						t.Errorf("%s %s: %s is %q and lacks %q", name, path, header, r.Header.Get(header), part)
					}
				}
				if strings.Contains(r.Header.Get("Content-Security-Policy"), "unsafe") {
					t.Errorf("%s allows what is inline", path)
				}
				head, empty := getPage(t, a, "HEAD", path)
				equal(t, "HEAD "+path, head.ContentLength, int64(len(body)))
				equal(t, "HEAD "+path, empty, "")
				for asked, status := range map[string]int{r.Header.Get("ETag"): 304, `"x", ` + r.Header.Get("ETag"): 304, "*": 304, `"x"`: 200} {
					again, _ := getPage(t, a, "GET", path, "If-None-Match", asked)
					equal(t, "If-None-Match: "+asked, again.StatusCode, status)
					equal(t, "its ETag", again.Header.Get("ETag"), r.Header.Get("ETag"))
				}
				since, _ := getPage(t, a, "GET", path, "If-Modified-Since", "Thu, 26 Nov 2026 12:00:00 GMT")
				equal(t, "If-Modified-Since", since.StatusCode, 200)
			}
			moved, _ := getPage(t, a, "GET", page.path)
			equal(t, page.path, moved.StatusCode, 308)
			equal(t, page.path+" leads to", moved.Header.Get("Location"), strings.TrimPrefix(page.path, "/")+"/")
		}
	}
}

// What is kept compressed is sent so to those who take it, and as it is to all others.
func TestPagesCompressed(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	_, want := getPage(t, a, "GET", "/docs/swagger-ui.css")
	for accepts, compressed := range map[string]bool{
		"gzip": true, "br, gzip;q=0.5": true, "gzip, deflate, br, zstd": true, "br": false, "gzip;q=0": false, "identity": false,
	} {
		r, body := getPage(t, a, "GET", "/docs/swagger-ui.css", "Accept-Encoding", accepts)
		equal(t, accepts, r.Header.Get("Content-Encoding") == "gzip", compressed)
		equal(t, "Vary", r.Header.Get("Vary"), "Accept-Encoding")
		if compressed {
			reader, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			body = string(plain)
		}
		if body != want || !strings.Contains(body, ".swagger-ui") {
			t.Errorf("Accept-Encoding: %s got %d bytes", accepts, len(body))
		}
	}
}

// There is nothing beside the files.
func TestPagesHaveNothingElse(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for _, path := range []string{
		"/ui/none", "/ui/ui.go", "/ui/index.html", "/ui//", "/ui/../docs/", "/ui/./", "/ui/%2e%2e/docs/", "/ui/..%2fdocs/docs.js", `/ui/..\docs/docs.js`,
		"/docs/docs%2Ejs", "/docs/docs.js/", "/docs/docs.js%00", "/docs/DOCS.JS", "/docs/swagger-ui.css.gz", "/docs/swagger-ui.js", "/UI/", "//ui/",
	} {
		r, body := getPage(t, a, "GET", path)
		if r.StatusCode != 404 || r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %s", path, r.StatusCode, r.Header, body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
		r, _ := getPage(t, a, method, "/docs/")
		equal(t, method, r.StatusCode, 405)
		equal(t, "Allow", r.Header.Get("Allow"), "GET, HEAD")
	}
}

// What a page loads is there, and nothing is inline or from elsewhere: the policy would stop it.
func TestPagesAreWhole(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	for _, page := range webPages() {
		_, html := getPage(t, a, "GET", page.path+"/")
		links := regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(html, -1)
		if len(links) < 2 {
			t.Errorf("%s has only %d links", page.path, len(links))
		}
		for _, link := range links {
			at, err := http.NewRequest("GET", "http://"+a.addr+page.path+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			target, err := at.URL.Parse(link[1])
			if err != nil || target.Scheme == "data" {
				continue
			}
			if r, _ := getPage(t, a, "GET", target.Path); target.Host != a.addr || r.StatusCode != 200 {
				t.Errorf("%s refers to %s: %d", page.path, target, r.StatusCode)
			}
		}
		for _, f := range page.files {
			if !strings.HasSuffix(f.name, ".js") && bytes.Contains(f.plain(), []byte("<script>")) || bytes.Contains(f.plain(), []byte("<style>")) {
				t.Errorf("%s/%s has a script or a style in itself", page.path, f.name)
			}
		}
	}
}
