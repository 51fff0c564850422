// Package browsertest opens the pages of a real server in Debian's Chromium, and uses them as people do. It is a module of its own,
// so that the server's does not have to name the package that drives the browser.
//
// A test fails if a page writes an error to the console, or asks any server but its own.
package browsertest

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var (
	program     = flag.String("program", "", "the portmaster to test; empty: it is built first")
	screenshots = flag.String("screenshots", "", "the folder that keeps a picture of each view; empty: none is kept")
)

// patience bounds every wait of these tests; none is meant to take long.
const patience = time.Minute

// browser is the context of the one browser that all tests share. Each page has its own profile in it.
var browser context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	work, err := os.MkdirTemp("", "portmaster-browsertest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(work)
	if *program == "" {
		*program = filepath.Join(work, "portmaster")
		build := exec.Command("go", "build", "-o", *program, "./cmd/portmaster")
		build.Dir, build.Env = "../../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
			return 1
		}
	}
	var stop context.CancelFunc
	browser, stop = chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(
		chromedp.NoSandbox, // root has no other way
		chromedp.UserDataDir(filepath.Join(work, "profile")),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), // nor does the browser itself ask anybody
	))
	defer stop()
	if err := chromedp.Do(browser); err != nil {
		fmt.Fprintln(os.Stderr, "no browser: apt-get install chromium:", err)
		return 1
	}
	return m.Run()
}

// page is a page in a profile of its own, as in the first window of a browser that was never used before.
type page struct {
	t       *testing.T
	ctx     context.Context
	server  *server
	path    string
	mu      sync.Mutex
	faults  []string // what the browser complains of, and what it should not have asked
	allowed []string
}

// open opens a page of the server. Errors on the console that contain one of the texts are meant to happen.
func open(t *testing.T, s *server, path string, allowed ...string) *page {
	t.Helper()
	p := &page{t: t, server: s, path: path, allowed: allowed}
	ctx, closePage := chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.listen))
	p.ctx = ctx
	t.Cleanup(func() {
		p.finish()
		closePage()
	})
	if err := chromedp.Do(ctx); err != nil { // the page lives as long as the context of the first call
		t.Fatal(err)
	}
	p.viewport(1400, 900)
	p.do(chromedp.Navigate(s.url(path)))
	return p
}

// finish fails the test for what the browser complained of, and keeps a picture of what was there.
func (p *page) finish() {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("true")); err != nil { // all events before its answer were heard
		p.t.Errorf("%s: %v", p.path, err)
	}
	p.mu.Lock()
	faults := p.faults
	p.mu.Unlock()
	for _, fault := range faults {
		p.t.Errorf("%s: %s", p.path, fault)
	}
	if p.t.Failed() {
		if picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot()); err == nil {
			p.keep("failed-"+strings.ReplaceAll(p.t.Name(), "/", "-"), picture)
		}
	}
}

// listen hears what happens on the page.
func (p *page) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type != "error" && e.Type != "assert" {
			return
		}
		var text []string
		for _, arg := range e.Args {
			text = append(text, string(arg.Value)+arg.Description)
		}
		p.fault("console: " + strings.Join(text, " "))
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		p.fault(fmt.Sprintf("%s (%s:%d)", text, e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber+1))
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" {
			p.fault(fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		at, err := url.Parse(e.Request.URL)
		if err == nil && (at.Scheme == "data" || at.Scheme == "blob" || at.Scheme == "http" && at.Host == p.server.addr) {
			return
		}
		p.fault("it asks another server: " + e.Request.URL)
	}
}

func (p *page) fault(text string) {
	for _, part := range p.allowed {
		if strings.Contains(text, part) {
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, text)
}

// do acts on the page, within patience.
func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("%s: %v", p.path, err)
	}
}

// eval returns the value of an expression of JavaScript. If that is a promise, eval waits for it.
func eval[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %s: %v", p.path, expression, err)
	}
	return value
}

// await waits until an expression of JavaScript is true.
func (p *page) await(expression string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !eval[bool](p, "!!("+expression+")") {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not within %s: %s; the page says:\n%s", p.path, patience, expression, eval[string](p, "document.body.innerText"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// viewport sets the size of the window.
func (p *page) viewport(width, height int64) {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(width, height))
}

// phone makes the window that of a phone.
func (p *page) phone() {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile, chromedp.EmulateTouch))
}

// media says what the user prefers, such as prefers-color-scheme: dark.
func (p *page) media(feature, value string) {
	p.t.Helper()
	features := []*emulation.MediaFeature{{Name: feature, Value: value}}
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		p.t.Fatal(err)
	}
}

// shot takes a picture of what the window shows.
func (p *page) shot(name string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if len(picture) < 2000 {
		p.t.Errorf("the picture %s has only %d bytes", name, len(picture))
	}
	p.keep(name, picture)
}

func (p *page) keep(name string, picture []byte) {
	p.t.Helper()
	if *screenshots == "" {
		return
	}
	if err := os.MkdirAll(*screenshots, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), picture, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
