package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
	"portmaster/config"
)

// The tables of the pages are what the code says. Those of routes and errors are looked at in handlers.

var writeReadme = flag.Bool("write-readme", false, "write the table of settings into config/README.md")

func TestReadmeSettings(t *testing.T) {
	text := readPage(t, settingsPage).text
	const begin, end = "<!-- settings: written by make docs -->\n", "<!-- /settings -->"
	before, rest, ok := strings.Cut(text, begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the markers of the table of settings", settingsPage)
	}
	if *writeReadme {
		if err := os.WriteFile(filepath.Join(repository, settingsPage), []byte(before+begin+config.Table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if table != config.Table() {
		t.Errorf("the table of settings in %s is not that of config.Table(): run make docs", settingsPage)
	}
}

// Each URL of the page is one that the server takes, for the kind of Redis that stands beside it.
func TestReadmeURLs(t *testing.T) {
	text := readPage(t, settingsPage).text
	rows := regexp.MustCompile("(?m)^\\| (one node|sentinel|cluster)[^|]* \\| `([^`]+)` \\|$").FindAllStringSubmatch(text, -1)
	if len(rows) != 4 {
		t.Fatalf("the page shows %d URLs", len(rows))
	}
	for _, row := range rows {
		if options, err := parseRedisURL(row[2]); err != nil || kind(options) != row[1] || options.Username != "user" || options.Password != "password" {
			t.Errorf("%s is %+v, error %v", row[2], options, err)
		}
	}
}

// The table of keys is what Redis holds where there is something of everything: a call in line, and the figures of
// many services, too.
func TestReadmeKeys(t *testing.T) {
	store, _, _ := storetest.Private(t)
	p := startProgram(t, store.Settings()...)
	p.must(t, 201, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`)
	offer := p.must(t, 201, "POST", "/v1/services/django/offers", `{"name":"web-01"}`)
	secret := volatile[0].pattern.FindString(offer)
	p.must(t, 204, "POST", "/v1/services/django/offers/"+secret+"/reject", `{"reason":"in_use"}`)
	p.must(t, 201, "POST", "/v1/services/django/ports", `{"name":"web-01","lease":60,"labels":{"job":"4711"}}`)
	p.must(t, 201, "POST", "/v1/services/django/offers", `{"name":"web-02"}`)
	ports := allocator.New(store.Client, allocator.Options{
		KeyPrefix: "portmaster", OfferTTL: time.Minute, PortMin: 5000, PortMax: 5009, Timeout: 5 * time.Second,
	})
	owner, owned := allocator.Caller{Owner: "OWNER"}, []allocator.Request{{Name: "web-03"}}
	if _, _, err := ports.Claim(t.Context(), owner, allocator.DefaultPool, "django", owned, allocator.Wait{}); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"PUT", "DELETE"} { // the figures stay for a while
		for i := range 300 {
			p.call(t.Context(), method, fmt.Sprint("/v1/pools/many/services/s", i), fmt.Sprintf(`{"start":%d,"end":%d}`, 5000+i, 5000+i))
		}
		if method == "PUT" {
			p.must(t, 200, "GET", "/metrics", "")
		}
	}
	p.must(t, 201, "PUT", "/v1/pools/many/services/django", `{"start":5000,"end":5009,"exclude":[5005],"pick":"name"}`)
	p.must(t, 201, "POST", "/v1/pools/many/services/django/ports", `{"name":"web-01"}`)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		p.call(t.Context(), "POST", "/v1/services/django/ports?wait=30", `{"name":"farm","count":9}`)
	}()
	defer func() {
		p.must(t, 200, "PUT", "/v1/services/django", `{"start":5000,"end":5020}`)
		<-waited
	}()
	line := func() bool { return store.Admin.Exists(t.Context(), "portmaster:{default}:line:django").Val() == 1 }
	eventually(t, "a call waits in line", line)

	held := map[string]string{}
	for _, key := range store.Admin.Keys(t.Context(), "*").Val() {
		name := volatile[0].pattern.ReplaceAllLiteralString(key, "SECRET")
		name = strings.Replace(name, "{many}", "{default}", 1) // the page shows one pool
		held[name] = strings.ToUpper(store.Admin.Type(t.Context(), key).Val())
	}
	text := readPage(t, statePage).text
	shown := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(portmaster:[^`]+)` \\| (\\w+)").FindAllStringSubmatch(text, -1) {
		shown[row[1]] = row[2]
	}
	for key, kind := range held {
		if kind == "ZSET" || kind == "HASH" || kind == "SET" || kind == "STRING" {
			if shown[key] != kind {
				t.Errorf("Redis holds %s, a %s, and the page shows %q", key, kind, shown[key])
			}
		}
		delete(shown, key)
	}
	for key := range shown {
		t.Errorf("the page shows %s, and Redis does not hold it", key)
	}
}
