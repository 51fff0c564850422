package lua

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	codes    = regexp.MustCompile(`'([A-Z]+(?:_[A-Z]+)+|INVALID|EXHAUSTED)\b`)
	listed   = regexp.MustCompile(`\b[A-Z]+(?:_[A-Z]+)+\b|\b(?:INVALID|EXHAUSTED)\b`)
	calls    = regexp.MustCompile(`\bp?call\('([A-Z]+)',?\s*(?:unpack\()?([^,()\[]*)`)
	named    = regexp.MustCompile(`(\w+) = KEYS\[(?:i \+ )?(\d+|i)\]`)
	numbered = regexp.MustCompile(`KEYS\[[^\]]+\]`)
	unpacked = regexp.MustCompile(`(?m)^local ([\w, ]+) = unpack\(KEYS\)$`)
	// The ARGV of an act, or those of each of its calls.
	eventsFirst = regexp.MustCompile(`\n-- ARGV   (?:[^;]*; )?(?:of each call[^:]*:\s+(?:--\s+)?)?events,\s+(?:--\s+)?request`)

	others   = regexp.MustCompile(`unpack\(KEYS, (\d+)\)`)
	keyUses  = regexp.MustCompile(`\bkeys\.(\w+)`)
	includes = regexp.MustCompile(`(?m)^-- include [\w/]+: (.*)$`)
	defines  = regexp.MustCompile(`(?m)^ *local function (\w+)`)
)

// callLine begins each act, and each part that calls Redis. Of a part only the functions are sent.
const callLine = "local call = redis.call\n"

// TestContracts holds each act to the header of its file.
func TestContracts(t *testing.T) {
	for _, act := range scriptFiles(t) {
		t.Run(act, func(t *testing.T) {
			header, code := read(t, act)
			for _, line := range []string{"-- KEYS   ", "-- ARGV   ", "-- answer ", "-- errors "} {
				if !strings.Contains(header, line) {
					t.Errorf("no line begins %q", line)
				}
			}
			s := script(act)
			if strings.Contains(s.Source, "local function write_event(") && !eventsFirst.MatchString(header) {
				t.Error("its ARGV do not begin with what parts/history.lua reads there")
			}
			checkKeys(t, s, code)
			checkErrors(t, header, s.Source)
			checkCalls(t, s)
			checkIncludes(t, s.Source, code)
		})
	}
}

// Every script is one of the files, and every function of a part is used by some.
func TestEveryFileIsUsed(t *testing.T) {
	source, err := os.ReadFile("lua.go")
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, act := range scriptFiles(t) {
		if !strings.Contains(string(source), `script("`+act+`")`) {
			t.Errorf("%s.lua is no script of lua.go", act)
		}
		all += script(act).Source
	}
	of := map[string]string{}
	for _, part := range partFiles(t) {
		for name := range partOf(part).functions {
			if of[name] != "" {
				t.Errorf("%s is a function of parts/%s.lua and of parts/%s.lua", name, part, of[name])
			}
			of[name] = part
			if !strings.Contains(all, "local function "+name+"(") {
				t.Errorf("nothing uses %s of parts/%s.lua", name, part)
			}
		}
	}
}

// TestLuacheck lets luacheck read each script as it is sent, and each part by itself, with the functions that it includes.
func TestLuacheck(t *testing.T) {
	luacheck, err := exec.LookPath("luacheck")
	if err != nil {
		t.Skip("luacheck is not on the PATH: the scripts are not checked by it")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name+".lua"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, act := range scriptFiles(t) {
		write(strings.ReplaceAll(act, "/", "_"), script(act).Source)
	}
	for _, part := range partFiles(t) {
		text := textOf("parts/" + part)
		if !strings.HasPrefix(text, callLine) && strings.Contains(text, "-- include ") {
			text = callLine + text // what it includes needs it
		}
		// Its functions may be used by others only: TestEveryFileIsUsed finds those that are not used at all.
		text += "return " + strings.Join(slices.Sorted(maps.Keys(partOf(part).functions)), ",\n") + "\n"
		write("parts_"+strings.ReplaceAll(part, "/", "_"), include(text, map[string]bool{}))
	}
	if said, err := exec.Command(luacheck, "-q", "--config", "../.luacheckrc", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// owned is the key that follows those of a call of an owner.
var owned = []string{"owned"}

// checkKeys finds each key of the header, and no other, named once in the code, as it is in the header and in its order.
func checkKeys(t *testing.T, s *Script, code string) {
	header, first := s.Keys, 0
	if s.Owned && len(s.Each) == 0 { // else read_requests finds it behind those of the requests
		header = slices.Concat(header, owned)
	}
	if header == nil { // KEYS[i], KEYS[i + 1], ...
		header, first = s.Each, -1
	}
	var found []string
	if m := unpacked.FindStringSubmatch(code); m != nil {
		found = strings.Split(m[1], ", ")
	} else {
		for i, m := range named.FindAllStringSubmatch(code, -1) {
			found = append(found, m[1])
			if first < 0 && m[2] != strings.Replace(strconv.Itoa(i), "0", "i", 1) || first == 0 && m[2] != strconv.Itoa(i+1) {
				t.Errorf("%s is KEYS[%s], and the header has another at its place", m[1], m[2])
			}
		}
		if n := len(numbered.FindAllString(code, -1)); n != len(found) {
			t.Errorf("%d keys have names, and %d numbers are used", len(found), n)
		}
	}
	if !slices.Equal(found, header) {
		t.Errorf("the header lists %v, and the code names %v", header, found)
	}
	if len(s.Keys) > 0 && len(s.Each) > 0 {
		if m := others.FindStringSubmatch(code); m == nil || m[1] != strconv.Itoa(len(header)+1) {
			t.Errorf("the keys of the requests do not begin at %d: %v", len(header)+1, m)
		}
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

// checkCalls finds as the key of every command one of KEYS by its name, and nothing made up: in a cluster a key that is not
// declared may be on another node.
func checkCalls(t *testing.T, s *Script) {
	keys := slices.Concat(s.Keys, s.Each)
	if s.Owned {
		keys = append(keys, owned...)
	}
	for _, m := range keyUses.FindAllStringSubmatch(s.Source, -1) {
		if !slices.Contains(keys, m[1]) {
			t.Errorf("keys.%s is none of %v", m[1], keys)
		}
	}
	alone := []string{"key", "service", "free", "fresh", "leases", "offer", "request.offer", "events"} // arguments that are keys
	if unpacked.MatchString(s.Source) {
		alone = append(alone, keys...)
	}
	for _, c := range calls.FindAllStringSubmatch(s.Source, -1) {
		key := strings.TrimSpace(c[2])
		if c[1] != "TIME" && c[1] != "PUBLISH" && !strings.HasPrefix(key, "keys.") && !slices.Contains(alone, key) {
			t.Errorf("%s works on %q, which is none of %v", c[1], key, keys)
		}
	}
}

// checkIncludes finds all functions that an act includes used by it, above the rest of its code, and none twice in what is sent.
func checkIncludes(t *testing.T, sent, code string) {
	if !strings.HasPrefix(code, callLine) {
		t.Error("it does not begin with the name that parts have for redis.call")
	}
	for _, m := range includes.FindAllStringSubmatch(code, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			if !regexp.MustCompile(`\b` + name + `\(`).MatchString(comment.ReplaceAllString(code, "")) {
				t.Errorf("it includes %s, and does not call it", name)
			}
		}
	}
	if head, _, _ := strings.Cut(code, "\n\n"); strings.Contains(strings.TrimPrefix(code, head), "-- include ") {
		t.Error("it includes something below its head")
	}
	seen := map[string]bool{}
	for _, m := range defines.FindAllStringSubmatch(sent, -1) {
		if seen[m[1]] {
			t.Errorf("%s is defined twice", m[1])
		}
		seen[m[1]] = true
	}
	if strings.Contains(sent, "-- include ") {
		t.Error("a part is not included")
	}
}

// scriptFiles lists the scripts by their paths, such as ports/offer.
func scriptFiles(t *testing.T) (names []string) {
	t.Helper()
	for _, path := range luaFiles(t) {
		if !strings.HasPrefix(path, "parts/") {
			names = append(names, path)
		}
	}
	return names
}

// partFiles lists the parts by their paths in parts/, such as ports/pick.
func partFiles(t *testing.T) (names []string) {
	t.Helper()
	for _, path := range luaFiles(t) {
		if part, is := strings.CutPrefix(path, "parts/"); is {
			names = append(names, part)
		}
	}
	return names
}

// luaFiles lists all files, embedded or not, without their ending.
func luaFiles(t *testing.T) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, _ fs.DirEntry, err error) error {
		if name, is := strings.CutSuffix(path, ".lua"); is {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
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

// Every finding of a check is on the page.
func TestFindingsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`(?:report\(|\{)'([a-z_]+)',`)
	for _, s := range []*Script{CheckPorts, CheckOffers, CheckEntries, CheckOwners} {
		found := codes.FindAllStringSubmatch(s.Source, -1)
		if len(found) == 0 {
			t.Error("a check reports nothing")
		}
		for _, code := range found {
			if !strings.Contains(string(page), "`"+code[1]+"`") {
				t.Errorf("the page does not explain %s", code[1])
			}
		}
	}
}
