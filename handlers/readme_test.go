package handlers

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The tables of routes and of codes on the page beside this file are the ones that the server works by.

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReadmeRoutes(t *testing.T) {
	served := map[string]bool{}
	for _, r := range serverRoutes {
		served[r.method+" "+r.path] = true
	}
	for _, r := range poolRoutes {
		served[r.method+" "+defaultMount+r.path] = true
	}
	parameter := regexp.MustCompile(`\{(\w+)\}`)
	shown := map[string]bool{}
	for _, cell := range regexp.MustCompile("(?m)^\\| (`(?:GET|PUT|POST|DELETE) [^|]*) \\|").FindAllStringSubmatch(readme(t), -1) {
		for _, route := range strings.Split(strings.Trim(cell[1], "`"), "` `") {
			shown[parameter.ReplaceAllString(route, ":$1")] = true
		}
	}
	same(t, "route", served, shown)
}

func TestReadmeCodes(t *testing.T) {
	answered := map[string]bool{}
	for code, p := range problems {
		answered[fmt.Sprintf("%s with %d", code, p.status)] = true
	}
	shown := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (\\d{3}) \\| .+ \\|$").FindAllStringSubmatch(readme(t), -1) {
		shown[row[1]+" with "+row[2]] = true
	}
	same(t, "code", answered, shown)
}

func same(t *testing.T, what string, code, shown map[string]bool) {
	t.Helper()
	for item := range code {
		if !shown[item] {
			t.Errorf("the page lacks the %s %s", what, item)
		}
	}
	for item := range shown {
		if !code[item] {
			t.Errorf("the page has the %s %s, and the server does not", what, item)
		}
	}
}
