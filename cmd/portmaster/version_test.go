package main

import (
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What make builds names the commit as git describe does, and has no symbols; what go build or go install does names it as
// Go does.
func TestVersion(t *testing.T) {
	t.Parallel()
	needs(t, "make", "git")
	dir := t.TempDir()
	build := func(command string, args ...string) {
		t.Helper()
		cmd := exec.Command(command, args...)
		cmd.Dir = "../.."
		cmd.Env = withoutMake(cmd.Environ())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", cmd, err, out)
		}
	}
	says := func(program string) string {
		t.Helper()
		out, err := exec.Command(program, "--version").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimPrefix(strings.TrimSpace(string(out)), "portmaster version ")
	}

	made, plain := filepath.Join(dir, "portmaster"), filepath.Join(dir, "plain")
	build("make", "build", "BIN="+dir)
	if described, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output(); err != nil {
		t.Log("this is no checkout: what git describe says is not looked at")
	} else if got := says(made); got != strings.TrimSpace(string(described)) {
		t.Errorf("make build: it says %s, want %s", got, described)
	}
	build("make", "build", "BIN="+dir, "VERSION=v1.2.3")
	if got := says(made); got != "v1.2.3" {
		t.Errorf("make build VERSION=v1.2.3: it says %s", got)
	}
	file, err := elf.Open(made)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, section := range []string{".symtab", ".debug_info"} {
		if file.Section(section) != nil {
			t.Errorf("make build leaves %s in", section)
		}
	}

	build("go", "build", "-o", plain, "./cmd/portmaster")
	info, err := buildinfo.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	if got := says(plain); got == "unknown" || got != info.Main.Version {
		t.Errorf("go build: it says %s, want %s", got, info.Main.Version)
	}

	p := startProgram(t)
	if want := fmt.Sprintf(" version=%s ", version()); !strings.Contains(p.log.String(), want) {
		t.Errorf("the log does not say %q:\n%s", want, p.log)
	}
}
