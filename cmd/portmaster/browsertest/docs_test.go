package browsertest

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// operation is what the page shows of an operation of openapi.yaml.
type operation struct {
	ID         string   `json:"id"`
	Method     string   `json:"method"`
	Path       string   `json:"path"`
	Parameters []string `json:"parameters"`
	HasBody    bool     `json:"hasBody"`
	Responses  []string `json:"responses"`
	Text       string   `json:"text"`
}

// shown reads the operation that is open on the page.
const shown = `(block => ({
	id: block.id.replace(/^operations-\w+-/, ""),
	method: block.querySelector(".opblock-summary-method").textContent,
	path: block.querySelector(".opblock-summary-path").dataset.path,
	parameters: [...block.querySelectorAll(".parameters [data-param-name]")].map(p => p.dataset.paramIn + " " + p.dataset.paramName),
	hasBody: block.querySelector(".opblock-section-request-body") !== null,
	responses: [...block.querySelectorAll("tr.response")].map(r => r.dataset.code),
	text: block.innerText,
}))(document.querySelector(".opblock.is-open"))`

// described reads the operations of the document as Swagger UI has resolved it, independent of what it shows.
const described = `Object.entries(ui.specSelectors.specJson().toJS().paths).flatMap(([path, item]) => Object.entries(item).map(([method, o]) => ({
	id: o.operationId, method: method.toUpperCase(), path,
	parameters: (o.parameters ?? []).map(p => p.$ref ? p.$ref.split("/").reduce((at, name) => at[name.replaceAll("~1", "/")] ?? at, ui.specSelectors.specJson().toJS()) : p).map(p => p.in + " " + p.name),
	hasBody: "requestBody" in o,
	responses: Object.keys(o.responses),
	text: o.summary,
})))`

// Every operation of openapi.yaml is on the page, and shows its parameters, body and responses when it is opened.
func TestDocsShowEveryOperation(t *testing.T) {
	s := startServer(t)
	p := open(t, s, "/docs/")
	p.await(`document.querySelectorAll(".opblock").length > 0`)
	p.shot("docs")
	p.accessible("nested-interactive", "select-name") // which Swagger UI breaks, whatever it shows
	document, err := os.ReadFile("../../../handlers/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := eval[[]operation](p, described)
	if ids := regexp.MustCompile(`(?m)^      operationId: `).FindAll(document, -1); len(ids) != len(want) || len(ids) < 20 {
		t.Fatalf("openapi.yaml has %d operations, and the page knows %d", len(ids), len(want))
	}
	for _, o := range want {
		click := fmt.Sprintf(`document.querySelector('[id$="-%s"] .opblock-summary-control').click(); null`, o.ID)
		eval[any](p, click) // one at a time: all together take the browser long
		p.await(`document.querySelector(".opblock.is-open .responses-table") && !document.querySelector(".opblock .loading")`)
		have := eval[operation](p, shown)
		if strings.Contains(have.Text, "Could not") || !strings.Contains(have.Text, o.Text) {
			t.Errorf("%s says:\n%s", o.ID, have.Text)
		}
		have.Text, o.Text = "", ""
		slices.Sort(have.Parameters)
		slices.Sort(o.Parameters)
		if fmt.Sprint(have) != fmt.Sprint(o) {
			t.Errorf("the page shows\n%+v, want\n%+v", have, o)
		}
		eval[any](p, click)
	}
	p.phone()
	p.shot("docs-phone")
}

// Whoever tries a call out makes it on the server that the page came from.
func TestDocsTryItOut(t *testing.T) {
	stores(t, func(t *testing.T, settings ...string) {
		s := startServer(t, settings...)
		s.call("POST", "/v1/services", `{"name":"web","start":5000,"end":5003}`)
		p := open(t, s, "/docs/#/services/listServices")
		try(p, "listServices", "200")
		if text := answerOf(p, "listServices"); !strings.Contains(text, `"name": "web"`) {
			t.Errorf("the page shows %s", text)
		}
		p.shot("docs-try-it-out")
	})
}

// With a token, the page makes calls as its owner, and forgets it with the page.
func TestDocsToken(t *testing.T) {
	k := newTokens(t)
	s := startServer(t, k.setting())
	p := open(t, s, "/docs/#/pools/listPools", "401")
	try(p, "listPools", "401")
	p.do(chromedp.Click(chromedp.CSS(".auth-wrapper .authorize")))
	p.do(chromedp.SendKeys(chromedp.CSS(".auth-container input"), k.reader))
	p.shot("docs-token")
	p.do(chromedp.Click(chromedp.CSS(".auth-btn-wrapper .authorize")), chromedp.Click(chromedp.CSS(".auth-btn-wrapper .btn-done")))
	p.do(chromedp.Click(chromedp.CSS("#operations-pools-listPools .execute")))
	p.await(`document.querySelector("#operations-pools-listPools .live-responses-table tbody .response-col_status").innerText.startsWith("200")`)

	stored := eval[string](p, `JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])`)
	if strings.Contains(stored, "pm_") {
		t.Errorf("the page keeps the token: %s", stored)
	}
	p.do(chromedp.Reload())
	try(p, "listPools", "401")
}

// try opens an operation, tries it out as it is, and waits for a status.
func try(p *page, id, status string) {
	p.t.Helper()
	block := fmt.Sprintf(`[id$="-%s"]`, id)
	p.await(fmt.Sprintf(`document.querySelector('%s.is-open .try-out__btn') ||
		document.querySelector('%s:not(.is-open) .opblock-summary-control')?.click()`, block, block))
	p.do(
		chromedp.Click(chromedp.CSS(block+" .try-out__btn")),
		chromedp.Click(chromedp.CSS(block+" .execute")),
	)
	p.await(fmt.Sprintf(`document.querySelector('%s .live-responses-table tbody .response-col_status')?.innerText.startsWith(%q)`, block, status))
}

// answerOf returns the answer that the page shows.
func answerOf(p *page, id string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf(`document.querySelector('[id$="-%s"] .live-responses-table').innerText`, id))
}
