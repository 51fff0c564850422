package handlers

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
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
	for _, cell := range regexp.MustCompile("(?m)^\\| (`(?:GET|PUT|PATCH|POST|DELETE) [^|]*) \\|").FindAllStringSubmatch(readme(t), -1) {
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

var writeReadme = flag.Bool("write-readme", false, "write the table of who may do what into README.md")

// The table of who may do what is the one that the server goes by: each kind of access with its routes.
func TestReadmeAccess(t *testing.T) {
	var table strings.Builder
	table.WriteString("| routes | operations | reader | client | operator |\n|---|---|---|---|---|\n")
	for _, a := range accesses {
		var operations []string
		for _, r := range slices.Concat(poolRoutes, serverRoutes) {
			if name := "`" + r.operation + "`"; r.access == a && !slices.Contains(operations, name) {
				operations = append(operations, name)
			}
		}
		roles := a.reader + " | " + a.client + " | " + a.operator
		if a == everybody {
			roles = "everybody | everybody | everybody"
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", a.routes, strings.Join(operations, " "), roles)
	}
	const begin, end = "<!-- access: written by make docs -->\n", "<!-- /access -->"
	before, rest, _ := strings.Cut(readme(t), begin)
	written, after, found := strings.Cut(rest, end)
	if !found {
		t.Fatalf("the page lacks the lines %q and %q", begin, end)
	}
	if *writeReadme {
		if err := os.WriteFile("README.md", []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if written != table.String() {
		t.Errorf("the page has\n%s\nwant\n%s\nmake docs writes it", written, table.String())
	}
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
