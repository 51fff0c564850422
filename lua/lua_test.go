package lua

import (
	"embed"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

//go:embed *.lua
var files embed.FS

// The fragments that each act is sent with; see lua.go.
var fragments = map[string][]string{
	"define": {"clock", "describe"}, "remove": {"clock"}, "offer": {"clock", "secret"}, "accept": {"clock", "secret"},
	"reject": {"clock", "secret"}, "release": {"clock", "find"}, "read_service": {"clock", "describe"},
	"read_offer": {"clock", "secret"}, "read_allocation": {"find"}, "recall": {"clock"}, "recover": {"clock"},
}

// The keys of other types than these would be a new part of the state.
var keyTypes = []string{"HASH", "ZSET", "STRING"}

var (
	numbered  = regexp.MustCompile(`\b(KEYS|ARGV)\[(\d+)\]`)
	codes     = regexp.MustCompile(`error_reply\(\s*(?:string\.format\()?'([A-Z_]+)`)
	listed    = regexp.MustCompile(`\b[A-Z]+(?:_[A-Z]+)+\b|\b(?:INVALID|EXHAUSTED)\b`)
	calls     = regexp.MustCompile(`\b(?:redis\.)?p?call\('([A-Z]+)',?\s*([^,()]*)`)
	keyLocals = regexp.MustCompile(`^local ([\w, ]+?) = (KEYS\[.*)$`)
)

// TestContracts holds each act to the header of its file.
func TestContracts(t *testing.T) {
	for act, with := range fragments {
		t.Run(act, func(t *testing.T) {
			header, code := read(t, act)
			if lead := regexp.MustCompile(`(?m)^-- KEYS   (.+)$`).FindStringSubmatch(header); lead == nil {
				t.Error("no line says KEYS")
			} else {
				checkKeys(t, lead[1], code)
			}
			for _, line := range []string{"-- ARGV   ", "-- answer ", "-- errors "} {
				if !strings.Contains(header, line) {
					t.Errorf("no line begins %q", line)
				}
			}
			checkErrors(t, header, code, with)
			checkCalls(t, code, with)
		})
	}
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), ".lua")
		if _, act := fragments[name]; !act && !slices.ContainsFunc([]string{"clock", "secret", "find", "describe"}, func(f string) bool { return f == name }) {
			t.Errorf("%s is neither an act nor a fragment that this test knows", entry.Name())
		}
	}
}

// checkKeys finds each key of the header, and no other, named in the first lines of the code, and none by number after.
func checkKeys(t *testing.T, keys, code string) {
	types := 0
	for word := range strings.FieldsFuncSeq(keys, func(r rune) bool { return r == ' ' || r == ',' }) {
		if slices.Contains(keyTypes, word) {
			types++
		}
	}
	var seen []string
	head := true
	for line := range strings.SplitSeq(code, "\n") {
		found := numbered.FindAllStringSubmatch(line, -1)
		if head = head && len(found) > 0 && strings.HasPrefix(line, "local "); head {
			for _, f := range found {
				if f[1] == "KEYS" {
					seen = append(seen, f[2])
				}
			}
		} else if len(found) > 0 && !strings.HasPrefix(strings.TrimSpace(line), "--") {
			// release's list of fences and define's ARGV as text are read where they are used.
			for _, f := range found {
				if f[1] == "KEYS" {
					t.Errorf("%s is used by its number: %s", f[0], line)
				}
			}
		}
	}
	for i, number := range seen {
		if number != strconv.Itoa(i+1) {
			t.Errorf("the keys are named in the order %v", seen)
			break
		}
	}
	if len(seen) != types {
		t.Errorf("the header lists %d keys, and the code names %d", types, len(seen))
	}
}

// checkErrors finds every error of an act and its fragments in the act's header, and the reverse.
func checkErrors(t *testing.T, header, code string, with []string) {
	promised := map[string]bool{}
	for _, word := range listed.FindAllString(header[strings.Index(header, "-- errors"):], -1) {
		promised[word] = true
	}
	given := map[string]bool{}
	for _, c := range codes.FindAllStringSubmatch(code, -1) {
		given[c[1]] = true
	}
	for _, fragment := range with {
		text, body := read(t, fragment)
		used := fragment != "secret" || strings.Contains(code, "not_found(")
		for _, c := range codes.FindAllStringSubmatch(text+body, -1) {
			given[c[1]] = given[c[1]] || used
		}
	}
	for c, g := range given {
		if g && !promised[c] {
			t.Errorf("the header does not list %s", c)
		}
	}
	for c := range promised {
		if !given[c] {
			t.Errorf("the header lists %s, and nothing answers it", c)
		}
	}
}

// checkCalls finds as the key of every command a name that stands for one of KEYS, and nothing made up: in a cluster a
// key that is not declared may be on another node.
func checkCalls(t *testing.T, code string, with []string) {
	names := []string{}
	for line := range strings.SplitSeq(code, "\n") {
		if m := keyLocals.FindStringSubmatch(line); m != nil {
			names = append(names, strings.Split(m[1], ", ")...)
		}
	}
	for _, fragment := range with {
		_, body := read(t, fragment)
		for _, function := range regexp.MustCompile(`(?m)^local function \w+\(([^)]*)\)`).FindAllStringSubmatch(body, -1) {
			names = append(names, strings.Split(function[1], ", ")...) // the act passes them on
		}
		code += body
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.Contains([]string{"service", "secret", "holder", "name", "expires"}, name)
	})
	for _, c := range calls.FindAllStringSubmatch(code, -1) {
		if key := strings.TrimSpace(c[2]); c[1] != "TIME" && !slices.Contains(names, key) {
			t.Errorf("%s works on %q, which is none of %v", c[1], key, names)
		}
	}
}

// read splits a file into the comment at its head and the code.
func read(t *testing.T, name string) (header, code string) {
	t.Helper()
	text, err := files.ReadFile(name + ".lua")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	end := slices.IndexFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "--") })
	return strings.Join(lines[:end], ""), strings.Join(lines[end:], "")
}
