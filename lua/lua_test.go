package lua

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The keys of other types than these would be a new part of the state.
var keyTypes = []string{"HASH", "ZSET", "STRING", "SET"}

var (
	numbered  = regexp.MustCompile(`\b(KEYS|ARGV)\[(\d+)\]`)
	codes     = regexp.MustCompile(`(?:error_reply|fault|fault_text)\(\s*(?:string\.format\()?'([A-Z_]+)`)
	listed    = regexp.MustCompile(`\b[A-Z]+(?:_[A-Z]+)+\b|\b(?:INVALID|EXHAUSTED)\b`)
	calls     = regexp.MustCompile(`\bcall\('([A-Z]+)',?\s*([^,()]*)`)
	keyLocals = regexp.MustCompile(`(?m)^local ([\w, ]+?) = KEYS\[`)
)

// ofSecret is how the secrets' keys are called: as many as there are wants, so that they have no number of their own.
var ofSecret = []string{"want.offer", "offer"}

// TestContracts holds each act to the header of its file.
func TestContracts(t *testing.T) {
	for _, act := range named(t, "*.lua") {
		t.Run(act, func(t *testing.T) {
			header, code := read(t, act)
			if lead := regexp.MustCompile(`(?ms)^-- KEYS   (.+?)^-- ARGV`).FindStringSubmatch(header); lead == nil {
				t.Error("no line says KEYS")
			} else {
				checkKeys(t, lead[1], code)
			}
			for _, line := range []string{"-- ARGV   ", "-- answer ", "-- errors "} {
				if !strings.Contains(header, line) {
					t.Errorf("no line begins %q", line)
				}
			}
			sent := script(act).Source
			if strings.Contains(sent, "include ") {
				t.Error("a part is not included")
			}
			checkErrors(t, header, sent)
			checkCalls(t, code, sent)
		})
	}
}

// Every script is one of the files, and every part is included by some.
func TestEveryFileIsUsed(t *testing.T) {
	source, err := os.ReadFile("lua.go")
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, act := range named(t, "*.lua") {
		if !strings.Contains(string(source), `script("`+act+`")`) {
			t.Errorf("%s.lua is no script of lua.go", act)
		}
		_, code := read(t, act)
		all += code
	}
	for _, part := range named(t, "parts/*.lua") {
		_, code := read(t, "parts/"+part)
		all += code
	}
	for _, part := range named(t, "parts/*.lua") {
		if !regexp.MustCompile(`(?m)^ *-- include ` + part + `$`).MatchString(all) {
			t.Errorf("nothing includes parts/%s.lua", part)
		}
	}
}

// TestLuacheck lets luacheck read each script as it is sent: with its parts, whose names no file has alone.
func TestLuacheck(t *testing.T) {
	luacheck, err := exec.LookPath("luacheck")
	if err != nil {
		t.Skip("luacheck is not on the PATH: the scripts are not checked by it")
	}
	dir := t.TempDir()
	for _, act := range named(t, "*.lua") {
		if err := os.WriteFile(filepath.Join(dir, act+".lua"), []byte(script(act).Source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := exec.Command(luacheck, "-q", "--config", "../.luacheckrc", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// checkKeys finds each key of the header, and no other, named in the first lines of the code, and none by number after.
func checkKeys(t *testing.T, keys, code string) {
	fixed, secrets, _ := strings.Cut(keys, "of each want:")
	types := 0
	for word := range strings.FieldsFuncSeq(fixed, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' }) {
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
			for _, f := range found {
				if f[1] == "KEYS" && !(secrets != "" && f[2] == strconv.Itoa(types+1)) { // the key of the only want
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

// checkErrors finds every error of a script in the act's header, and the reverse.
func checkErrors(t *testing.T, header, sent string) {
	promised := map[string]bool{}
	for _, word := range listed.FindAllString(header[strings.Index(header, "-- errors"):], -1) {
		promised[word] = true
	}
	given := map[string]bool{}
	for _, c := range codes.FindAllStringSubmatch(sent, -1) {
		given[c[1]] = true
	}
	for c := range given {
		if !promised[c] {
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
func checkCalls(t *testing.T, code, sent string) {
	names := slices.Clone(ofSecret)
	for _, m := range keyLocals.FindAllStringSubmatch(code, -1) {
		names = append(names, strings.Split(m[1], ", ")...)
	}
	for _, c := range calls.FindAllStringSubmatch(sent, -1) {
		if key := strings.TrimSpace(c[2]); c[1] != "TIME" && !slices.Contains(names, key) {
			t.Errorf("%s works on %q, which is none of %v", c[1], key, names)
		}
	}
}

// named lists the files of a pattern, without their folder and ending.
func named(t *testing.T, pattern string) (names []string) {
	t.Helper()
	paths, err := fs.Glob(files, pattern)
	if err != nil || len(paths) == 0 {
		t.Fatal(pattern, err)
	}
	for _, path := range paths {
		names = append(names, strings.TrimSuffix(path[strings.LastIndex(path, "/")+1:], ".lua"))
	}
	return names
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
