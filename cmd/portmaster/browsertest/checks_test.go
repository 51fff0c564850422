package browsertest

import (
	"slices"
	"strings"
	"testing"
)

// The checks that every page gets find what they are for: here each has something to find.
func TestChecksFindFaults(t *testing.T) {
	s := startServer(t)
	for name, fault := range map[string]struct{ script, says string }{
		"error on the console":   {`console.error("broken")`, "broken"},
		"exception":              {`setTimeout(() => { throw new Error("thrown"); })`, "thrown"},
		"rejection":              {`(Promise.reject(new Error("rejected")), 0)`, "rejected"},
		"another server":         {`(fetch("http://example.org/").catch(() => {}), 0)`, "http://example.org/"},
		"picture from elsewhere": {`document.body.append(Object.assign(new Image(), {src: "http://example.org/a.png"}))`, "Content Security Policy"},
		"inline script":          {`document.body.append(Object.assign(document.createElement("script"), {text: "0"}))`, "Content Security Policy"},
		"inline style":           {`document.body.setAttribute("style", "color: red")`, "Content Security Policy"},
		"missing file":           {`fetch("/ui/none").then(() => 0)`, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, s, "/ui/")
			eval[any](p, fault.script+"; null")
			eventually(t, "the fault is found", func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				found := slices.ContainsFunc(p.faults, func(text string) bool { return strings.Contains(text, fault.says) })
				if found {
					p.faults = nil
				}
				return found
			})
			p.allowed = []string{""} // what follows from it
		})
	}
	t.Run("accessibility", func(t *testing.T) {
		p := open(t, s, "/ui/", "") // its scripts miss what is taken away here
		eval[any](p, `document.body.replaceChildren(document.createElement("button"), document.createElement("img")); null`)
		if faults := strings.Join(p.axe(), "\n"); !strings.Contains(faults, "button-name") || !strings.Contains(faults, "image-alt") {
			t.Errorf("axe-core finds only %s", faults)
		}
	})
}
