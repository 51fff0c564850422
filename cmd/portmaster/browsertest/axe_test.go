package browsertest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// axePackage has the checks of accessibility.
const axePackage = "axe-core@4.14.1"

// axe returns the program that makes the checks in a page. npm keeps what it has fetched.
var axe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "portmaster-axe-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("npm", "pack", axePackage, "--prefer-offline", "--silent", "--update-notifier=false")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm pack %s: %w: %s", axePackage, err, out)
	}
	packed, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(packed) != 1 {
		return "", fmt.Errorf("npm pack made %v, error %w", packed, err)
	}
	content, err := os.ReadFile(packed[0])
	if err != nil {
		return "", err
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err != nil {
			return "", errors.Join(errors.New("no axe.min.js"), err)
		}
		if header.Name == "package/axe.min.js" {
			source, err := io.ReadAll(files)
			return string(source), err
		}
	}
})

// accessible fails the test for each fault that axe-core finds in the page as it is. It does not look for those of the rules named.
func (p *page) accessible(except ...string) {
	p.t.Helper()
	for _, fault := range p.axe(except...) {
		p.t.Errorf("%s: %s", p.path, fault)
	}
}

// axe returns the faults that axe-core finds.
func (p *page) axe(except ...string) []string {
	p.t.Helper()
	source, err := axe()
	if err != nil {
		p.t.Fatal(err)
	}
	eval[bool](p, "(() => {"+source+"; return true;})()")
	rules := map[string]map[string]bool{}
	for _, rule := range except {
		rules[rule] = map[string]bool{"enabled": false}
	}
	options, err := json.Marshal(map[string]any{"rules": rules})
	if err != nil {
		p.t.Fatal(err)
	}
	found := eval[struct {
		Passed int      `json:"passed"`
		Faults []string `json:"faults"`
	}](p, `axe.run(document, `+string(options)+`).then(result => ({
		passed: result.passes.length,
		faults: result.violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.failureSummary + "\n  " + n.html.slice(0, 300))),
	}))`)
	if found.Passed < 5 {
		p.t.Errorf("%s: axe-core passed only %d rules", p.path, found.Passed)
	}
	return found.Faults
}
