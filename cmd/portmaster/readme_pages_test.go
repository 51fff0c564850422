package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"portmaster/config"
)

// The pages are the README.md files of the repository. Their commands are run in readme_test.go; here they are held against the
// code and against each other.

// The pages that tests name.
const (
	readmePage    = "README.md"
	apiPage       = "handlers/README.md"
	statePage     = "lua/README.md"
	settingsPage  = "config/README.md"
	operatorsPage = "deployments/README.md"
	costPage      = "cmd/ratios/README.md"
	commandsPage  = "cmd/portmaster/README.md"
)

const maxReadmeLines = 250

// repository is the folder that the paths of pages begin in.
const repository = "../.."

// page is a README.md: its path in the repository, its text, and its fenced blocks.
type page struct {
	path, text string
	blocks     []block
}

// block is a fenced block of a page.
type block struct {
	section    section
	lang, text string
	line       int
}

// String says where the block is.
func (b block) String() string { return fmt.Sprintf("%s:%d", b.section.page, b.line) }

func readPage(t *testing.T, path string) page {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	p := page{path: path, text: string(file)}
	at := section{page: path}
	var open *block
	for i, line := range strings.Split(p.text, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{section: at, lang: fence, line: i + 1}
		case isFence:
			p.blocks, open = append(p.blocks, *open), nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "#"):
			at.heading = strings.TrimLeft(line, "# ")
		}
	}
	return p
}

// step is a block of commands and what the page shows of their output.
type step struct{ commands, output block }

// steps returns the commands of the given sections.
func steps(t *testing.T, sections ...section) []step {
	t.Helper()
	var found []step
	for _, section := range sections {
		n := len(found)
		blocks := readPage(t, section.page).blocks
		for i, b := range blocks {
			if b.section != section || b.lang != "sh" {
				continue
			}
			s := step{commands: b}
			if i+1 < len(blocks) && blocks[i+1].section == section && blocks[i+1].lang != "sh" {
				s.output = blocks[i+1]
			}
			found = append(found, s)
		}
		if len(found) == n {
			t.Fatalf("%s: the section %q has no commands", section.page, section.heading)
		}
	}
	return found
}

// readPages returns every page.
func readPages(t *testing.T) (pages []page) {
	t.Helper()
	for _, path := range filesOf(t, "README.md") {
		pages = append(pages, readPage(t, path))
	}
	if len(pages) < 7 {
		t.Fatalf("found %d pages", len(pages))
	}
	return pages
}

// filesOf returns the paths of the repository's files whose names end so.
func filesOf(t *testing.T, suffix string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != repository && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		if !entry.IsDir() && strings.HasSuffix(path, suffix) {
			paths = append(paths, strings.TrimPrefix(filepath.ToSlash(path), repository+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// prose returns the text of a page without its fenced blocks.
func (p page) prose() string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(p.text, "")
}

// anchors returns the anchors of the headings of a level and, of level 0, of all levels.
func (p page) anchors(level int) (anchors []string) {
	for _, heading := range regexp.MustCompile(`(?m)^(#+) (.+)$`).FindAllStringSubmatch(p.prose(), -1) {
		if level == 0 || len(heading[1]) == level {
			anchors = append(anchors, anchor(heading[2]))
		}
	}
	return anchors
}

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

func TestReadmeIsShort(t *testing.T) {
	if lines := strings.Count(readPage(t, readmePage).text, "\n"); lines > maxReadmeLines {
		t.Errorf("README.md has %d lines, and at most %d are read to the end", lines, maxReadmeLines)
	}
}

func TestPagesHaveContents(t *testing.T) {
	for _, p := range readPages(t) {
		if p.path == readmePage {
			continue
		}
		contents, _, _ := strings.Cut(p.prose(), "\n## ")
		for _, anchor := range p.anchors(2) {
			if !strings.Contains(contents, "](#"+anchor+")") {
				t.Errorf("%s: the contents lack #%s", p.path, anchor)
			}
		}
		if !strings.Contains(readPage(t, readmePage).text, "]("+p.path+")") {
			t.Errorf("README.md does not lead to %s", p.path)
		}
	}
}

func TestPagesLinksLeadSomewhere(t *testing.T) {
	links := 0
	for _, p := range readPages(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`).FindAllStringSubmatch(p.prose(), -1) {
			links++
			if strings.Contains(link[1], "://") {
				continue
			}
			target := p.path
			if link[1] != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(p.path), link[1]))
			}
			if _, err := os.Stat(filepath.Join(repository, target)); err != nil {
				t.Errorf("%s: %s: %v", p.path, link[0], err)
			} else if link[2] != "" && !slices.Contains(readPage(t, target).anchors(0), link[2]) {
				t.Errorf("%s: %s: %s has no such heading", p.path, link[0], target)
			}
		}
	}
	if links < 50 {
		t.Errorf("the pages have %d links", links)
	}
}

// What a page names in code is there: paths of files, tests, settings, and targets of make.
func TestPagesNameWhatExists(t *testing.T) {
	var code, makefile string
	for _, path := range append(filesOf(t, ".go"), "Makefile") {
		text, err := os.ReadFile(filepath.Join(repository, path))
		if err != nil {
			t.Fatal(err)
		}
		if code += string(text); path == "Makefile" {
			makefile = string(text)
		}
	}
	settings := config.Table()
	for _, kind := range []struct {
		what, pattern string
		exists        func(name string) bool
	}{
		{"path", "`((?:allocator|client|cmd|config|deployments|handlers|lua|\\.ci)/[\\w./-]*)`", func(path string) bool {
			_, err := os.Stat(filepath.Join(repository, path))
			return err == nil
		}},
		{"test", "`((?:Test|Fuzz)\\w+)`", func(name string) bool { return strings.Contains(code, "\nfunc "+name+"(") }},
		{"setting", `\b(PORTMASTER_[A-Z_]*[A-Z])\b`, func(name string) bool {
			return strings.Contains(settings, "`"+name+"`") || strings.Contains(code, `"`+name+`"`) // or a variable of the tests
		}},
		{"target", "(?m)(?:`|^)make ([a-z-]+)", func(name string) bool { return strings.Contains(makefile, "\n"+name+":") }},
	} {
		named := 0
		for _, p := range readPages(t) {
			for _, name := range regexp.MustCompile(kind.pattern).FindAllStringSubmatch(p.text, -1) {
				if named++; !kind.exists(name[1]) {
					t.Errorf("%s names the %s %s, and there is none", p.path, kind.what, name[1])
				}
			}
		}
		if named < 20 {
			t.Errorf("the pages name %d of the kind %s", named, kind.what)
		}
	}
}

func TestCIRunsTheTargets(t *testing.T) {
	ci, err := os.ReadFile(filepath.Join(repository, ".ci/run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"make lint", "make test", "make check-deployments"} {
		if !strings.Contains(string(ci), "\n"+command+"\n") {
			t.Errorf(".ci/run does not run %s", command)
		}
	}
}
