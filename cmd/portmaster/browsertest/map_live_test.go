package browsertest

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// live waits until the page has its stream.
func (p *page) live() {
	p.t.Helper()
	p.await(`document.getElementById("connection").dataset.status === "live"`)
}

// settled waits until the page has read no map for a while: it reads one twice if its stream begins late.
func (p *page) settled() {
	p.t.Helper()
	p.live()
	p.await(`performance.now() - Math.max(...performance.getEntriesByType("resource").filter(e => e.name.includes("/map"))
		.map(e => e.responseEnd)) > 1500`)
}

// mapReads is how often the page has read a map.
func (p *page) mapReads() int {
	p.t.Helper()
	return eval[int](p, `performance.getEntriesByType("resource").filter(e => e.name.includes("/map")).length`)
}

// claimed waits until the table shows who holds a port.
func (p *page) claimed(port int, name string) {
	p.t.Helper()
	p.await(fmt.Sprintf(`[...document.querySelectorAll("#holders tbody tr")].some(
		tr => tr.cells.length > 2 && tr.cells[0].innerText === "%d" && tr.cells[2].innerText === %q)`, port, name))
}

// gone waits until the table does not show a name any more.
func (p *page) gone(name string) {
	p.t.Helper()
	p.await(fmt.Sprintf(`!document.getElementById("holders").innerText.includes(%q)`, name))
}

// A claim, what becomes of it, and an offer appear by themselves: the first two by the stream, without reading the map anew.
func TestMapIsLive(t *testing.T) {
	stores(t, func(t *testing.T, settings ...string) {
		s := startServer(t, settings...)
		s.call("POST", "/v1/services", `{"name":"web","start":5000,"end":5009}`)
		p := open(t, s, "/ui/?service=web")
		p.legend()
		p.settled()
		read := p.mapReads()
		begun := time.Now()
		s.call("POST", "/v1/services/web/ports", `{"name":"job-1","lease":"1h"}`)
		p.claimed(5000, "job-1")
		t.Logf("the claim was seen after %s", time.Since(begun))
		p.awaitText("feed-list", "web 5000")
		p.await(`document.querySelector("#service-list").innerText.includes("9 free")`)
		s.call("DELETE", "/v1/services/web/ports/job-1", "")
		p.gone("job-1")
		if again := p.mapReads(); again != read {
			t.Errorf("the map was read %d times for a claim and a release, before them %d", again, read)
		}
		const secret = "9f2e8d2f-d94e-44a8-93b3-b6518f0bcaff"
		s.call("POST", "/v1/services/web/offers", `{"name":"try-1","secret":"`+secret+`"}`)
		p.await(`document.getElementById("holders").innerText.includes("try-1")`)
		s.call("POST", "/v1/services/web/offers/"+secret+"/reject", `{"reason":"in_use"}`)
		p.await(`/quarantined.*min/.test(document.getElementById("holders").innerText.replaceAll("\n", " "))`)
		s.call("PUT", "/v1/services/web", `{"start":5000,"end":5019}`)
		p.awaitText("service-facts", "5000–5019")
		if text := p.legend(); !strings.Contains(text, "19 free, 1 quarantined") {
			t.Errorf("after a change of the range the legend says %q", text)
		}
	})
}

// A page that lost its server, or that nobody saw for a while, shows what happened meanwhile.
func TestMapConnectsAgain(t *testing.T) {
	s := startServer(t, startRedis(t))
	s.call("POST", "/v1/services", `{"name":"web","start":5000,"end":5009}`)
	p := open(t, s, "/ui/?service=web", "net::ERR_")
	p.legend()
	p.live()
	s.stop()
	p.await(`document.getElementById("connection").dataset.status === "lost"`)
	other := startServer(t, s.env[2])
	other.call("POST", "/v1/services/web/ports", `{"name":"job-1"}`)
	s.start()
	p.live()
	p.claimed(5000, "job-1")
	p.await(`document.getElementById("trouble").hidden`)

	hide := func(isHidden bool) {
		eval[any](p, fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %v, configurable: true}),
			document.dispatchEvent(new Event("visibilitychange")), null`, isHidden))
	}
	hide(true)
	p.await(`document.getElementById("connection").dataset.status === "hidden"`)
	s.call("POST", "/v1/services/web/ports", `{"name":"job-2"}`)
	hide(false)
	p.live()
	p.claimed(5001, "job-2")
	p.awaitText("feed-list", "job-2")
}

// Ten thousand ports that change at once are all counted, and the page still answers.
func TestMapTakesManyEvents(t *testing.T) {
	s := startServer(t)
	s.call("POST", "/v1/services", `{"name":"large","start":1100,"end":49099}`)
	p := open(t, s, "/ui/?service=large")
	p.legend()
	p.live()
	for i := range 20 {
		var names []string
		for j := range 100 {
			names = append(names, fmt.Sprintf(`{"name":"job-%d-%d","count":2}`, i, j))
		}
		s.call("POST", "/v1/services/large/ports", "["+strings.Join(names, ",")+"]")
	}
	p.await(`document.getElementById("legend").textContent.includes("4,000 allocated")`)
	if lines := eval[int](p, `document.querySelectorAll("#feed-list li").length`); lines != 100 {
		t.Errorf("the feed keeps %d lines", lines)
	}
	p.do(chromedp.Click(chromedp.CSS("#holders .pager button:last-child")))
	p.awaitText("holders", "51–100 of 2,000")
	p.await(`document.querySelector("#holders tbody a").innerText === "1200–1201"`)
	frame := eval[float64](p, `(async () => {
		const map = document.getElementById("map"), times = [];
		for (let i = 0, last = performance.now(); i < 60; i++) {
			map.scrollTop = i * 9;
			await new Promise(requestAnimationFrame);
			times.push(performance.now() - last);
			last = performance.now();
		}
		return times.sort((a, b) => a - b)[30];
	})()`)
	t.Logf("a frame of 48,000 ports takes %.1f ms", frame)
}

// fill types into the fields of the open dialog and sends it.
func (p *page) fill(fields map[string]string) {
	p.t.Helper()
	p.await(`document.getElementById("act-dialog").open`)
	for id, text := range fields {
		p.do(chromedp.SetValue(chromedp.CSS("#act-"+id), text))
	}
	p.do(chromedp.Click(chromedp.CSS("#act-dialog button[type=submit]")))
}

// An operator defines, changes and removes a service.
func TestMapDefinesServices(t *testing.T) {
	s := startServer(t)
	p := open(t, s, "/ui/", "409")
	p.do(chromedp.Click(chromedp.CSS("#define")))
	p.await(`document.getElementById("act-dialog").open`)
	p.accessible()
	p.shot("map-define")
	p.fill(map[string]string{"name": "web", "ranges": "5000-5009", "cooldown": "90"})
	p.awaitText("service-title", "web")
	p.awaitText("service-facts", "ports 5000–5009 · cooldown 1m30s")
	s.call("POST", "/v1/services/web/ports", `{"name":"job-1"}`)
	p.claimed(5000, "job-1")

	p.do(chromedp.Click(chromedp.CSS("#change")))
	p.fill(map[string]string{"ranges": "5000-5002, 5004,5008 – 5009", "description": "Shop", "cooldown": "0"})
	p.awaitText("service-facts", "ports 5000–5002, 5004, 5008–5009 · no cooldown")
	p.awaitText("service-text", "Shop")
	p.do(chromedp.Click(chromedp.CSS("#change")))
	p.fill(map[string]string{"ranges": "5001-5004"})
	p.await(`document.querySelector("#act-dialog .wrong").textContent.includes("RANGE_IN_USE")`)
	p.accessible()
	p.shot("map-change")
	p.do(chromedp.Click(chromedp.CSS("#act-drain")), chromedp.Click(chromedp.CSS("#act-dialog button[type=submit]")))
	p.awaitText("service-facts", "ports 5001–5004 · 1 draining")
	p.claimed(5000, "job-1")
	p.do(chromedp.Click(chromedp.CSS("#change")))
	p.fill(map[string]string{"description": "Shops"})
	p.awaitText("service-text", "Shops")

	p.do(chromedp.Click(chromedp.CSS("#remove")))
	p.fill(nil)
	p.await(`document.querySelector("#act-dialog .wrong").textContent.includes("SERVICE_IN_USE")`)
	p.shot("map-refused")
	s.call("DELETE", "/v1/services/web/ports/job-1", "")
	p.do(chromedp.Click(chromedp.CSS("#act-dialog button[type=submit]")))
	p.await(`!document.getElementById("first-steps").hidden`)
	if services := s.call("GET", "/v1/services", ""); services != "[]\n" {
		t.Errorf("there are still %s", services)
	}
}

// give gives a token to the page that asks for one.
func (p *page) give(token string) {
	p.t.Helper()
	p.await(`document.getElementById("token-dialog").open`)
	p.do(chromedp.SetValue(chromedp.CSS("#token-field"), token), chromedp.Click(chromedp.CSS("#token-form button[type=submit]")))
}

// With tokens the page asks for one, does what its role may, says what it may not, and asks again when the token is taken away.
func TestMapAsksForTokens(t *testing.T) {
	keys := newTokens(t)
	s := startServer(t, keys.setting())
	s.token = keys.operator
	s.call("POST", "/v1/services", `{"name":"web","start":5000,"end":5009}`)
	s.call("POST", "/v1/services/web/ports", `{"name":"job-1","count":2}`)
	p := open(t, s, "/ui/?service=web&port=5001", "401", "403")
	p.await(`document.getElementById("token-dialog").open`)
	p.accessible()
	p.shot("map-token")
	p.give("wrong")
	p.awaitText("token-why", "does not accept this token")
	p.give(keys.reader)
	p.awaitText("card-facts", "job-1")
	p.live()

	p.do(chromedp.Click(chromedp.CSS("#card-release")))
	p.await(`document.getElementById("act-title")?.textContent === "Release ports 5000–5001?"`)
	p.accessible()
	p.shot("map-release")
	p.fill(nil)
	p.await(`document.querySelector("#act-dialog .wrong").textContent.includes("FORBIDDEN")`)
	p.do(chromedp.Click(chromedp.CSS("#act-dialog button[type=button]")), chromedp.Click(chromedp.CSS("#token-button")))
	read := p.mapReads()
	p.give(keys.operator)
	eventually(t, "the map is read with the other token", func() bool { return p.mapReads() > read })
	p.await(`document.getElementById("card-release").checkVisibility()`)
	p.do(chromedp.Click(chromedp.CSS("#card-release")))
	p.fill(nil)
	p.gone("job-1")
	p.awaitText("card-facts", "free")
	p.awaitText("card-history", "released")
	if held := s.call("GET", "/v1/services/web/ports", ""); held != "[]\n" {
		t.Errorf("the server still has %s", held)
	}
	if kept := eval[string](p, `JSON.stringify(localStorage) + document.cookie + location`); strings.Contains(kept, keys.operator) {
		t.Errorf("the token is kept in %s", kept)
	}

	line, err := exec.Command(*program, "token", "other", "--role", "reader", "--scope", "*/*").Output()
	if err != nil {
		t.Fatal(err)
	}
	keys.write(strings.Split(string(line), "\n")[1])
	p.await(`document.getElementById("token-dialog").open`)
	p.awaitText("token-why", "no longer")
}

// What is released is the allocation that was confirmed, not the one that the name has by now.
func TestMapReleasesWhatWasConfirmed(t *testing.T) {
	s := startServer(t)
	s.call("POST", "/v1/services", `{"name":"web","start":5000,"end":5000}`)
	s.call("POST", "/v1/services/web/ports", `{"name":"job-1"}`)
	p := open(t, s, "/ui/?service=web&port=5000", "412")
	p.awaitText("card-facts", "job-1")
	p.do(chromedp.Click(chromedp.CSS("#card-release")))
	p.await(`document.getElementById("act-title")?.textContent === "Release port 5000?"`)
	s.call("DELETE", "/v1/services/web/ports/job-1", "")
	s.call("POST", "/v1/services/web/ports", `{"name":"job-1"}`)
	p.fill(nil)
	p.await(`document.querySelector("#act-dialog .wrong").textContent.includes("PRECONDITION_FAILED")`)
	if held := s.call("GET", "/v1/services/web/ports", ""); !strings.Contains(held, "job-1") {
		t.Errorf("the next allocation was released: %s", held)
	}
}
