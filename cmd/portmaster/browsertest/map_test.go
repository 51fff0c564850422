package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// defineWeb defines a service with a port in each state but quarantine: 5000 is cooling, 5001 to 5003 are a block, 5004 is leased,
// and 5005 is on offer. Its description would be markup if it were not text.
func defineWeb(s *server) {
	s.call("PUT", "/v1/services/web", `{"description":"<img src=none onerror=alert(1)>","start":5000,"end":5099,"cooldown":"1h"}`)
	s.call("POST", "/v1/services/web/ports", `{"name":"gone"}`)
	s.call("DELETE", "/v1/services/web/ports/gone", "")
	s.call("POST", "/v1/services/web/ports", `{"name":"block-1","count":3}`)
	s.call("POST", "/v1/services/web/ports", `{"name":"job-1","lease":"2h"}`)
	s.call("POST", "/v1/services/web/offers", `{"name":"try-1"}`)
}

// legend is what the legend of the map says, once the map was read.
func (p *page) legend() string {
	p.t.Helper()
	p.await(`document.getElementById("map-wait").hidden && !document.getElementById("service").hidden`)
	return eval[string](p, `[...document.querySelectorAll("#legend li:not(.is-none)")].map(li => li.textContent).join(", ")`)
}

// rows are the rows of the table of ports, as text.
func (p *page) rows() []string {
	p.t.Helper()
	return eval[[]string](p, `[...document.querySelectorAll("#holders tbody tr")].map(
		tr => [...tr.cells].slice(0, 4).map(td => td.innerText).join("|"))`)
}

// awaitText waits until the text of an element contains something.
func (p *page) awaitText(id, text string) {
	p.t.Helper()
	p.await(fmt.Sprintf(`document.getElementById(%q).textContent.includes(%q)`, id, text))
}

func TestMapShowsStates(t *testing.T) {
	stores(t, func(t *testing.T, settings ...string) {
		s := startServer(t, settings...)
		defineWeb(s)
		p := open(t, s, "/ui/?service=web")
		if got, want := p.legend(), "94 free, 1 offered, 3 allocated, 1 leased, 1 cooling"; got != want {
			t.Errorf("the legend says %q, not %q", got, want)
		}
		want := "5000|cooling|| 5001–5003|allocated|block-1| 5004|leased|job-1| 5005|offered|try-1|"
		if got := strings.Join(p.rows(), " "); got != want {
			t.Errorf("the table has %q, not %q", got, want)
		}
		if text := eval[string](p, `document.getElementById("service-text").textContent`); !strings.HasPrefix(text, "<img") {
			t.Errorf("the description is shown as %q", text)
		}
		if images := eval[int](p, `document.querySelectorAll("main img").length`); images != 0 {
			t.Errorf("a description became %d images", images)
		}

		s.call("PUT", "/v1/services/full", `{"start":6000,"end":6000}`)
		s.call("POST", "/v1/services/full/ports", `{"name":"only"}`)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		for i := range 3 {
			go func() { // it waits until the test ends
				body := strings.NewReader(fmt.Sprintf(`{"name":"late-%d"}`, i))
				request, err := http.NewRequestWithContext(ctx, "POST", s.url("/v1/services/full/ports?wait=1m"), body)
				if err == nil {
					request.Header.Set("Content-Type", "application/json")
					_, _ = http.DefaultClient.Do(request)
				}
			}()
		}
		p.do(chromedp.Navigate(s.url("/ui/?service=full")))
		p.awaitText("service-waiting", "3 calls waiting")
		p.awaitText("service-line", "late-2")
	})
}

// Ports between two ranges are not of the service: they have no state, and keys pass over them.
func TestMapShowsRanges(t *testing.T) {
	s := startServer(t)
	s.call("PUT", "/v1/services/web", `{"ranges":[{"start":5000,"end":5001},{"start":5005,"end":5009}]}`)
	p := open(t, s, "/ui/?service=web")
	if got, want := p.legend(), "7 free"; got != want {
		t.Errorf("the legend says %q, not %q", got, want)
	}
	p.awaitText("service-facts", "ports 5000–5001, 5005–5009")
	p.do(chromedp.Focus(chromedp.CSS("#map")))
	p.awaitText("map-at", "5000")
	p.do(chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowRight))
	p.awaitText("map-at", "5005")
	p.do(chromedp.KeyEvent(kb.ArrowLeft))
	p.awaitText("map-at", "5001")
	s.call("POST", "/v1/services/web/ports", `{"name":"job-1","port":5009}`)
	p.await(`document.querySelector("#legend").textContent.includes("6 free")`)
}

// A port that drains is on the map, outside of the ranges, until it is given back. The facts have what else the service was told.
func TestMapShowsDrainingPorts(t *testing.T) {
	s := startServer(t)
	s.call("PUT", "/v1/services/web", `{"start":5000,"end":5009,"cooldown":"2h","pick":"name","default_lease":"1h","max_lease":"1d"}`)
	s.call("POST", "/v1/services/web/ports", `{"name":"job-1","port":5008,"count":2}`)
	s.call("PATCH", "/v1/services/web", `{"start":5000,"end":5008,"drain":true}`)
	p := open(t, s, "/ui/?service=web&port=5009")
	if got, want := p.legend(), "8 free, 2 leased, 1 draining"; got != want {
		t.Errorf("the legend says %q, not %q", got, want)
	}
	p.awaitText("service-facts", "ports 5000–5008 · 1 draining · cooldown 2h · ports by name · default lease 1h · longest lease 1d")
	p.awaitText("card-facts", "leased, draining")
	if got, want := strings.Join(p.rows(), " "), "5008–5009|leased, draining|job-1|"; got != want {
		t.Errorf("the table has %q, not %q", got, want)
	}
	p.shot("map-draining")
	p.do(chromedp.Focus(chromedp.CSS("#map")), chromedp.KeyEvent(kb.End))
	p.awaitText("map-at", "5009, leased, draining, job-1")
	s.call("DELETE", "/v1/services/web/ports/job-1", "")
	p.gone("job-1")
	if got, want := p.legend(), "8 free, 1 cooling"; got != want {
		t.Errorf("after the release the legend says %q, not %q", got, want)
	}
	p.do(chromedp.KeyEvent(kb.End))
	p.awaitText("map-at", "5008, cooling")
}

// The card shows labels: addresses of the web as links, all else as text.
func TestMapShowsLabels(t *testing.T) {
	s := startServer(t)
	s.call("PUT", "/v1/services/web", `{"start":5000,"end":5009}`)
	const labels = `"labels":{"job":"<img src=none>","url":"https://ci.example/4711","script":"javascript:alert(1)"}`
	s.call("POST", "/v1/services/web/ports", `{"name":"group/job:1",`+labels+`}`)
	s.call("POST", "/v1/services/web/offers", `{"name":"try-1",`+labels+`}`)
	for _, port := range []string{"5000", "5001"} {
		p := open(t, s, "/ui/?service=web&port="+port)
		p.await(`document.getElementById("card-labels")`)
		if got, want := eval[string](p, `[...document.querySelectorAll("#card-labels li")].map(li => li.textContent).join(", ")`),
			"job <img src=none>, script javascript:alert(1), url https://ci.example/4711"; got != want {
			t.Errorf("the labels of %s are %q, not %q", port, got, want)
		}
		if got := eval[string](p, `[...document.querySelectorAll("#card-labels li *:not(.quiet)")].map(e => e.outerHTML).join()`); strings.Count(got, "<") != 2 ||
			!strings.HasPrefix(got, `<a href="https://ci.example/4711"`) {
			t.Errorf("the labels of %s have %s", port, got)
		}
		p.accessible()
		p.shot("map-labels-" + port)
	}
}

// A port is reached by link, by pointer and by keyboard, and the back button leads back.
func TestMapChoosesPorts(t *testing.T) {
	s := startServer(t)
	defineWeb(s)
	p := open(t, s, "/ui/")
	p.do(chromedp.Click(chromedp.CSS("#overview-table a")))
	p.legend()
	p.do(chromedp.Click(chromedp.CSS("#holders tbody tr:nth-child(3) a")))
	p.awaitText("card-facts", "job-1")
	if query := eval[string](p, "location.search"); query != "?pool=default&service=web&port=5004" {
		t.Errorf("the address is %s", query)
	}
	p.do(chromedp.NavigateBack())
	p.await(`document.getElementById("card").hidden`)
	p.do(chromedp.NavigateBack())
	p.await(`!document.getElementById("overview").hidden`)
	p.do(chromedp.NavigateForward())
	p.legend()

	p.do(chromedp.Focus(chromedp.CSS("#map")), chromedp.KeyEvent(kb.ArrowRight+kb.ArrowRight))
	p.awaitText("map-at", "5002, allocated, block-1, block 5001–5003")
	p.do(chromedp.KeyEvent(kb.ArrowRight, chromedp.KeyModifiers(kb.ModifierCtrl)))
	p.awaitText("map-at", "5004, leased, job-1")
	p.do(chromedp.KeyEvent(kb.Enter))
	p.awaitText("card-facts", "job-1")

	// The pixel in the middle of port 5001 is on the map, and a click on it shows the port.
	at := eval[[]float64](p, `(() => {
		const box = document.getElementById("map").getBoundingClientRect();
		return [box.left + 52 + 70, box.top + 20];
	})()`)
	p.do(chromedp.MouseClickXY(at[0], at[1]))
	p.await(`document.getElementById("card-port").textContent !== "5004"`)
	p.accessible()
}

func TestMapSearches(t *testing.T) {
	s := startServer(t)
	defineWeb(s)
	s.call("POST", "/v1/services", `{"name":"other","start":6000,"end":6001}`)
	p := open(t, s, "/ui/?service=web")
	p.legend()
	eval[any](p, `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "/", bubbles: true})); null`) // KeyEvent would type it
	p.do(chromedp.KeyEvent("JOB"))
	p.awaitText("found", "1 match")
	if got := strings.Join(p.rows(), " "); got != "5004|leased|job-1|" {
		t.Errorf("the table has %q", got)
	}
	p.accessible()
	p.do(chromedp.KeyEvent(kb.Enter))
	p.awaitText("card-port", "5004")
	if query := eval[string](p, "location.search"); query != "?pool=default&service=web&port=5004&search=JOB" {
		t.Errorf("the address is %s", query)
	}
	p.do(chromedp.SetValue(chromedp.CSS("#search"), "z"), chromedp.SendKeys(chromedp.CSS("#search"), "\b"))
	p.awaitText("holders", "cooling")
	for _, order := range []struct{ sort, first string }{{"ascending", "block-1"}, {"descending", "try-1"}} {
		p.do(chromedp.Click(chromedp.CSS("#holders th:nth-child(3) button")))
		p.await(`document.querySelector("#holders th:nth-child(3)").ariaSort === "` + order.sort + `"`)
		if got := p.rows()[0]; !strings.HasSuffix(got, order.first+"|") {
			t.Errorf("%s by name begins with %q", order.sort, got)
		}
	}
	p.do(chromedp.SetValue(chromedp.CSS("#search"), "6001"), chromedp.SendKeys(chromedp.CSS("#search"), " \b\r"))
	p.awaitText("service-title", "other")
	p.awaitText("card-port", "6001")

	// What the service does not have is looked for in all.
	p.do(chromedp.SetValue(chromedp.CSS("#search"), "block"), chromedp.SendKeys(chromedp.CSS("#search"), " \b\r"))
	p.awaitText("everywhere-text", "1 found")
	p.accessible()
	p.do(chromedp.Click(chromedp.CSS("#everywhere-table tbody a")))
	p.awaitText("card-facts", "block-1")
}

// Each view, as it is kept for those who look at it, passes the checks of accessibility.
func TestMapViews(t *testing.T) {
	s := startServer(t)
	empty := open(t, s, "/ui/")
	empty.await(`!document.getElementById("first-steps").hidden`)
	empty.accessible()
	empty.shot("map-empty")
	defineWeb(s)
	fillGames(s)
	for _, view := range []struct {
		name, path, theme string
		isPhone           bool
	}{
		{"overview", "/ui/", "light", false},
		{"overview-phone", "/ui/", "dark", true},
		{"service", "/ui/?service=web&port=5002", "light", false},
		{"service-dark", "/ui/?service=web&port=5002", "dark", false},
		{"service-phone", "/ui/?service=web&port=5002", "light", true},
		{"large", "/ui/?service=games", "light", false},
		{"large-phone", "/ui/?service=games", "dark", true},
		{"search-dark", "/ui/?service=games&search=eu", "dark", false},
	} {
		p := open(t, s, "/ui/none", "404")
		p.path = view.path
		p.media("prefers-color-scheme", view.theme)
		if view.isPhone {
			p.phone()
		}
		p.do(chromedp.Navigate(s.url(view.path)))
		if strings.Contains(view.path, "service") {
			p.legend()
		} else {
			p.awaitText("overview-text", "2 services")
		}
		p.live()
		p.accessible()
		if wide := eval[float64](p, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
			t.Errorf("%s is %v pixels wider than its window", view.name, wide)
		}
		p.shot("map-" + view.name)
	}
}

// fillGames defines a large service, and allocates many of its ports.
func fillGames(s *server) {
	s.call("POST", "/v1/services", `{"name":"games","description":"Game servers, Europe","start":10000,"end":30000}`)
	for i := range 20 {
		var requests []map[string]any
		for j := range 50 {
			request := map[string]any{"name": fmt.Sprintf("%s-%d-%d", []string{"eu", "us", "asia"}[j%3], i, j)}
			if j%2 == 0 {
				request["lease"] = 400 << (j / 5)
			}
			if j%5 == 0 {
				request["count"] = 2 + j/10
			}
			requests = append(requests, request)
		}
		body, err := json.Marshal(requests)
		if err != nil {
			s.t.Fatal(err)
		}
		s.call("POST", "/v1/services/games/ports", string(body))
	}
}
