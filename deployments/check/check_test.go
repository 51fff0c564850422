// Package check holds the tests of deployments/: each file is read by the parser of the program that it is for, and what it
// promises is tried. It is a module of its own, so that the server's does not have to name all these parsers.
package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	deployments = ".."
	repository  = "../.."
)

// patience bounds every wait of these tests; none is meant to take long.
const patience = 30 * time.Second

// mutant is a fault in one of the files. The check has to find it, and to say so.
type mutant struct{ file, old, new, says string }

// holds runs a check of deployments/ as it is, and then on copies of it with a fault in each.
func holds(t *testing.T, check func(t *testing.T, dir string) error, mutants ...mutant) {
	t.Helper()
	t.Run("as it is", func(t *testing.T) {
		if err := check(t, absolute(t, deployments)); err != nil {
			t.Error(err)
		}
	})
	for _, m := range mutants {
		t.Run("not with "+m.file+" "+m.new, func(t *testing.T) {
			dir := copyOfDeployments(t)
			m.put(t, dir)
			if err := check(t, dir); err == nil || !strings.Contains(err.Error(), m.says) {
				t.Errorf("the error is %v, and should say %q", err, m.says)
			}
		})
	}
}

// put replaces the first old by new in the copy of the file.
func (m mutant) put(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, m.file)
	text := read(t, path)
	if !strings.Contains(text, m.old) {
		t.Fatalf("%s has no %q to put a fault in", m.file, m.old)
	}
	write(t, path, strings.Replace(text, m.old, m.new, 1))
}

// copyOfDeployments copies what is checked, not the checks.
func copyOfDeployments(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(deployments)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		from, to := filepath.Join(deployments, entry.Name()), filepath.Join(dir, entry.Name())
		switch {
		case entry.Name() == "check":
		case entry.IsDir():
			if err := os.CopyFS(to, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
		default:
			write(t, to, read(t, from))
		}
	}
	return dir
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tool is a program that these checks run, and the Debian package that it comes in.
type tool struct{ command, debian string }

var (
	haproxy          = tool{"haproxy", "haproxy"}
	prometheusServer = tool{"prometheus", "prometheus"}
	promtool         = tool{"promtool", "prometheus"}
	redisServer      = tool{"redis-server", "redis-server"}
	redisCLI         = tool{"redis-cli", "redis-tools"}
	shellcheck       = tool{"shellcheck", "shellcheck"}
	systemdAnalyze   = tool{"systemd-analyze", "systemd"}
)

// path fails the test where the tool is missing: a file that nothing checked would look like one that is right.
func (p tool) path(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath(p.command)
	if errors.Is(err, exec.ErrNotFound) {
		path, err = exec.LookPath("/usr/sbin/" + p.command) // some users do not have it on the PATH
	}
	if err != nil {
		t.Fatalf("%v: apt-get install %s", err, p.debian)
	}
	return path
}

// run runs the tool to its end. Its error is what it wrote.
func (p tool) run(t *testing.T, dir string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path(t), args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", p.command, err, out.Bytes())
	}
	return out.String(), nil
}
