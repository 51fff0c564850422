package main

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// What happened is listed the latest first, and who had a port at some time.
func TestHistoryCommand(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	code, stdout, stderr := p.shell(t, `set -e
		portmaster service define ci 20000-20009 -q
		portmaster claim ci a --count 2 -q
		portmaster claim ci b --lease 1h -q
		portmaster release ci a
		portmaster claim ci c --port 20001 -q
		portmaster offer ci d -q > secret
		portmaster reject ci $(cat secret) --in-use
		echo; portmaster history ci
		echo; portmaster history ci --port 20001 --no-headers
		echo; portmaster history ci --name b --since 1h -q | wc -l
		echo; portmaster history ci --port 20001 --at 0.001 -o json
		echo; portmaster history ci --until 1h -o json
		echo; portmaster history ci --since 2026-01-02T15:04:05+01:00 --name none`)
	got := regexp.MustCompile(" +").ReplaceAllString(varies.ReplaceAllString(stdout, "V"), " ")
	want := `ci
20000
20002
20001

TIME EVENT SERVICE PORT NAME OWNER UNTIL
V in_use ci 20000 d - -
V allocated ci 20001 c - -
V released ci 20000-20001 a - -
V allocated ci 20002 b - V
V allocated ci 20000-20001 a - -
V defined ci 20000-20009 - - -

V allocated ci 20001 c - -
V released ci 20000-20001 a - -
V allocated ci 20000-20001 a - -

1

[{"id":"V-0","time":"V","event":"allocated","pool":"default","service":"ci","name":"c","port":20001,"fence":V}]

[]

TIME EVENT SERVICE PORT NAME OWNER UNTIL
`
	if code != 0 || got != want {
		t.Errorf("exit code %d, %s\n%s\nwant\n%s", code, stderr, got, want)
	}
	for line, says := range map[string]string{
		"history ci --at 1h":       "--at needs --port or --name",
		"history ci -o env":        "--output must be table or json",
		"history ci --since soon":  `invalid argument "soon" for "--since" flag: must be a time such as`,
		"history ci --port 0":      `invalid argument "0" for "--port" flag: must be within 1-65535`,
		"history":                  "accepts 1 arg(s), received 0",
		"watch -o env":             "--output must be table or json",
		"watch a b":                "accepts at most 1 arg(s), received 2",
		"watch ci --after nothing": "INVALID: ",
	} {
		if code, _, stderr := p.shell(t, "portmaster "+line); code != 2 || !strings.HasPrefix(stderr, "portmaster: "+says) {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
	}
	for _, line := range []string{"history none", "watch none"} {
		if code, _, stderr := p.shell(t, "portmaster "+line); code != 3 || !strings.HasPrefix(stderr, "portmaster: SERVICE_NOT_FOUND: ") {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
	}
}

// watched is a portmaster watch that runs.
type watched struct {
	cmd    *exec.Cmd
	lines  chan string
	stderr *os.File
}

func startWatch(t *testing.T, addr string, args ...string) *watched {
	t.Helper()
	w := &watched{cmd: programCommand(append([]string{"watch"}, args...), "PORTMASTER_SERVER=http://"+addr), lines: make(chan string, 99)}
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if w.stderr, err = os.CreateTemp(t.TempDir(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stderr.Close() })
	w.cmd.Stderr = w.stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cmd.Process.Kill(); w.cmd.Wait() })
	go func() {
		defer close(w.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			w.lines <- scanner.Text()
		}
	}()
	return w
}

// next returns the next line, in which V stands for what varies.
func (w *watched) next(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-w.lines:
		if !ok {
			t.Fatalf("watch has ended: %s", w.said(t))
		}
		return regexp.MustCompile(" +").ReplaceAllString(varies.ReplaceAllString(line, "V"), " ")
	case <-time.After(20 * time.Second):
		t.Fatalf("watch prints nothing: %s", w.said(t))
	}
	return ""
}

func (w *watched) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(w.stderr.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

// Events are printed as they happen, over a restart of the server, until the command is interrupted.
func TestWatchCommand(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	p.must(t, 201, "PUT", "/v1/services/ci", `{"start":20000,"end":20009}`)
	p.must(t, 201, "PUT", "/v1/services/web", `{"start":20010,"end":20019}`)
	all, one := startWatch(t, p.addr, "--no-headers"), startWatch(t, p.addr, "ci", "-o", "json")
	heads := startWatch(t, p.addr, "web")
	if line := heads.next(t); line != "TIME EVENT SERVICE PORT NAME OWNER UNTIL" {
		t.Error(line)
	}
	// A claim that comes before a stream is connected is not in it.
	eventually(t, "both are connected", func() bool {
		p.must(t, 201, "POST", "/v1/services/ci/ports", `{"name":"first"}`)
		p.must(t, 204, "DELETE", "/v1/services/ci/ports/first", "")
		time.Sleep(200 * time.Millisecond)
		return len(all.lines) > 0 && len(one.lines) > 0
	})
	p.must(t, 201, "POST", "/v1/services/web/ports", `{"name":"w"}`)
	p.must(t, 201, "POST", "/v1/services/ci/ports", `{"name":"c","port":20005}`)
	await := func(w *watched, want string) {
		t.Helper()
		for line := w.next(t); line != want; line = w.next(t) {
			if !strings.Contains(line, "first") {
				t.Fatalf("got %s, want %s", line, want)
			}
		}
	}
	await(all, "V allocated web 20010 w - -")
	await(all, "V allocated ci 20005 c - -")
	await(one, `{"id":"V-0","time":"V","event":"allocated","pool":"default","service":"ci","name":"c","port":20005,"fence":V}`)
	await(heads, "V allocated web 20010 w - -")
	for _, w := range []*watched{all, one, heads} {
		if w.said(t) != "" {
			t.Error(w.said(t))
		}
		if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		for range w.lines {
		}
		_ = w.cmd.Wait()
		if code := w.cmd.ProcessState.ExitCode(); code != 130 || w.said(t) != "" {
			t.Errorf("exit code %d: %s", code, w.said(t))
		}
	}
}

// Over a restart of its server, watch misses nothing that happens meanwhile, and says so on stderr.
func TestWatchGoesOn(t *testing.T) {
	t.Parallel()
	redis := "PORTMASTER_REDIS_URL=redis://" + storetest.Mini(t).Addr
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	first, other := startProgram(t, redis, "PORTMASTER_HTTP_ADDR="+addr), startProgram(t, redis)
	other.must(t, 201, "PUT", "/v1/services/ci", `{"start":20000,"end":20009}`)
	w := startWatch(t, addr)
	if line := w.next(t); line != "TIME EVENT SERVICE PORT NAME OWNER UNTIL" { // it is connected
		t.Error(line)
	}
	first.cmd.Process.Kill()
	<-first.exited
	eventually(t, "the stream is lost", func() bool { return strings.HasSuffix(w.said(t), "; trying again") })
	other.must(t, 201, "POST", "/v1/services/ci/ports", `{"name":"meanwhile"}`)
	startProgram(t, redis, "PORTMASTER_HTTP_ADDR="+addr)
	if line := w.next(t); line != "V allocated ci 20000 meanwhile - -" {
		t.Error(line)
	}
	if said := w.said(t); strings.Count(said, "\n") != 1 || !strings.HasSuffix(said, "\nportmaster: connected again") {
		t.Error(said)
	}
}
