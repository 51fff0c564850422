package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portmaster/allocator/storetest"
	"portmaster/allocator/storetest/processes"
)

// asProgram makes the test's executable be the program itself, race detector included.
const asProgram = "RUN_AS_THE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	storetest.Main(m)
}

// program is a process that a test started, which ends with the test.
type program struct {
	cmd    *exec.Cmd
	log    *output // what it wrote to stderr
	addr   string  // where it serves
	exited <-chan struct{}
}

// patience bounds every wait of these tests; none is meant to take long.
const patience = 20 * time.Second

// startProgram runs portmaster serve with the given settings, on a port of its own, and waits until it listens.
func startProgram(t *testing.T, settings ...string) *program {
	t.Helper()
	return startCommand(t, programCommand([]string{"serve"}, settings...), patience)
}

// startCommand starts a command that runs a server, and waits until that listens.
func startCommand(t *testing.T, cmd *exec.Cmd, bound time.Duration) *program {
	t.Helper()
	p := &program{cmd: cmd, log: &output{}}
	cmd.Stderr = p.log
	var err error
	if p.exited, err = processes.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.SysProcAttr.Setpgid {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("the server's log:\n%s", p.log)
		}
	})
	serving := regexp.MustCompile(`msg=serving address=(\S+)`)
	processes.Eventually(t, bound, "the server listens", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("the server ended at once:\n%s", p.log)
		default:
		}
		if found := serving.FindStringSubmatch(p.log.String()); found != nil {
			p.addr = strings.Replace(found[1], "[::]", "127.0.0.1", 1)
		}
		return p.addr != ""
	})
	return p
}

// programCommand is the program with arguments, and with no settings but the given ones.
func programCommand(args []string, settings ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(withoutSettings(os.Environ()), asProgram+"=1", "PORTMASTER_HTTP_ADDR=127.0.0.1:0")
	cmd.Env = append(cmd.Env, settings...)
	return cmd
}

func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool { return strings.HasPrefix(entry, "PORTMASTER_") })
}

// call sends a request on a connection of its own and returns the status and the body; the status is 0 where no answer came.
func (p *program) call(ctx context.Context, method, path, body string) (status int, answer string) {
	return p.callWith(ctx, nil, method, path, body)
}

// callAs is call with a request id.
func (p *program) callAs(t *testing.T, id, method, path, body string) (status int, answer string) {
	return p.callWith(t.Context(), http.Header{"X-Request-Id": {id}}, method, path, body)
}

func (p *program) callWith(ctx context.Context, header http.Header, method, path, body string) (status int, answer string) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+p.addr+path, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	request.Close = true
	maps.Copy(request.Header, header)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	var text bytes.Buffer
	text.ReadFrom(response.Body)
	return response.StatusCode, text.String()
}

// must sends a request and returns the body of an answer that has the given status.
func (p *program) must(t *testing.T, status int, method, path, body string) string {
	t.Helper()
	got, answer := p.call(t.Context(), method, path, body)
	if got != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, answer)
	}
	return answer
}

// status returns the status of GET path, or 0 where none came within a moment.
func (p *program) status(t *testing.T, path string) int {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	status, _ := p.call(ctx, "GET", path, "")
	return status
}

func (p *program) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// wait waits for the end of the process.
func (p *program) wait(t *testing.T) *os.ProcessState {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState
	case <-time.After(patience):
		t.Fatal("the program does not end")
		return nil
	}
}

// run runs the program to its end and returns its exit code and what it wrote.
func run(t *testing.T, args []string, settings ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	like := programCommand(args, settings...)
	cmd := exec.CommandContext(ctx, like.Path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = like.Env, &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	processes.Eventually(t, patience, what, ok)
}

// output gathers what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
