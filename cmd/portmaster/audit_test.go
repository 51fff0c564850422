package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The audit file is rotated under load, again and again: each call has one line in one of the files.
func TestAuditIsRotatedWithoutALostLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	p := startProgram(t, "PORTMASTER_AUDIT=all", "PORTMASTER_AUDIT_FILE="+path)
	p.must(t, 201, "PUT", "/v1/services/django", `{"start":5000,"end":5009}`)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("others may read the audit: %v, %v", info.Mode(), err)
	}
	var stop atomic.Bool
	var calls sync.Map // request id -> nil
	var load sync.WaitGroup
	for worker := range 4 {
		load.Go(func() {
			for i := 0; !stop.Load(); i++ {
				id := fmt.Sprintf("%d-%d", worker, i)
				if status, answer := p.callAs(t, id, "PUT", "/v1/services/django", `{"start":5000,"end":5009}`); status != 200 {
					t.Error(status, answer)
					return
				}
				calls.Store("request_id="+id+" ", nil)
			}
		})
	}
	const rotations = 5
	for i := range rotations {
		if err := os.Rename(path, fmt.Sprint(path, ".", i)); err != nil {
			t.Fatal(err)
		}
		p.signal(t, syscall.SIGHUP)
		eventually(t, "lines come in the new file", func() bool {
			text, err := os.ReadFile(path)
			return err == nil && bytes.Count(text, []byte("\n")) >= 10
		})
	}
	stop.Store(true)
	load.Wait()
	all := readFile(t, path)
	for i := range rotations {
		all += readFile(t, fmt.Sprint(path, ".", i))
	}
	n := 0
	for id := range calls.Range {
		n++
		if strings.Count(all, id.(string)) != 1 {
			t.Errorf("%s has %d lines", id, strings.Count(all, id.(string)))
		}
	}
	if n < 10*rotations {
		t.Errorf("only %d calls were made", n)
	}
	if strings.Contains(p.log.String(), "msg=audit") || strings.Count(p.log.String(), "the audit file was opened anew") != rotations {
		t.Errorf("the log says %s", p.log)
	}
}

// Where the file cannot grow, the server goes on, and counts what is lost. Then lines are whole again.
func TestAuditOnAFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	like := programCommand([]string{"serve"}, "PORTMASTER_AUDIT=all", "PORTMASTER_AUDIT_FILE="+path)
	cmd := exec.Command("sh", "-c", `ulimit -f 4; exec "$0" serve`, like.Path) // blocks of 512 bytes
	cmd.Env = like.Env
	p := startCommand(t, cmd, patience)
	const lost = "portmaster_audit_lost_lines_total "
	for i := range 30 {
		p.must(t, 201, "PUT", fmt.Sprint("/v1/services/s", i), fmt.Sprintf(`{"start":%d,"end":%d}`, 5000+i, 5000+i))
	}
	if figures := p.must(t, 200, "GET", "/metrics", ""); !strings.Contains(figures, lost) || strings.Contains(figures, lost+"0\n") {
		t.Error("no line is counted as lost")
	}
	// There is room again: the next line does not continue the one that was cut.
	if text := readFile(t, path); strings.HasSuffix(text, "\n") {
		t.Fatalf("no line was cut in %q", text)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	p.must(t, 204, "DELETE", "/v1/services/s7", "")
	if text := readFile(t, path); !strings.Contains(text[100:], "\ntime=") || !strings.Contains(text, "operation=removeService pool=default service=s7 code=OK") {
		t.Errorf("the file has %q", text)
	}
}

// Without a file the lines are in the log, whatever its level.
func TestAuditInTheLog(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "PORTMASTER_AUDIT=refusals", "PORTMASTER_LOG_FORMAT=text")
	p.must(t, 404, "DELETE", "/v1/services/django", "")
	eventually(t, "the line is there", func() bool {
		return strings.Contains(p.log.String(), "level=WARN msg=audit operation=removeService pool=default service=django code=SERVICE_NOT_FOUND request_id=")
	})
}

// A file that cannot be written ends the start, with one line that names the setting. A pipe does not block it.
func TestAuditFileThatCannotBeOpened(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nowhere/audit.log", t.TempDir(), pipe} {
		code, _, stderr := run(t, []string{"serve"}, "PORTMASTER_AUDIT=all", "PORTMASTER_AUDIT_FILE="+path)
		if code != 1 || !strings.HasPrefix(stderr, "portmaster: PORTMASTER_AUDIT_FILE: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", path, code, stderr)
		}
	}
}
