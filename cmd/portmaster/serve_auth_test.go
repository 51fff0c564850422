package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"portmaster/handlers/identity"
)

// ask sends a GET with a Host and a token, unless they are empty, and returns the status.
func (p *program) ask(t *testing.T, path, host, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+p.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host, request.Close = host, true
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// tokensFor writes a tokens file with one operator, and returns the operator's token.
func tokensFor(t *testing.T) (setting, token string) {
	t.Helper()
	token = identity.NewToken()
	line, err := identity.Line("root", identity.Operator, "*/*", "-", token)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "PORTMASTER_AUTH_TOKENS_FILE=" + path, token
}

// Whom a server lets in by its settings, and what it says at its start.
func TestWhoIsLetIn(t *testing.T) {
	tokens, token := tokensFor(t)
	for _, test := range []struct {
		settings               []string
		stranger, known, named int // the status without a token, with one, and for the host ports.example
		warns                  bool
	}{
		{nil, 200, 200, 421, false},
		{[]string{"PORTMASTER_HOSTS=ports.example"}, 200, 200, 200, false},
		{[]string{"PORTMASTER_AUTH=none", "PORTMASTER_HTTP_ADDR=:0"}, 200, 200, 421, true},
		{[]string{"PORTMASTER_AUTH=none", "PORTMASTER_HTTP_ADDR=:0", "PORTMASTER_HOSTS=a,ports.example"}, 200, 200, 200, true},
		{[]string{tokens}, 401, 200, 401, false},
		{[]string{tokens, "PORTMASTER_HTTP_ADDR=:0"}, 401, 200, 401, false},
	} {
		t.Run(strings.Join(test.settings, " "), func(t *testing.T) {
			p := startProgram(t, append(test.settings, "PORTMASTER_LOG_LEVEL=debug")...)
			for i, status := range []int{
				p.ask(t, "/v1/services", "", ""), p.ask(t, "/v1/services", "", token), p.ask(t, "/v1/services", "ports.example", ""),
				p.ask(t, "/readyz", "ports.example", ""),
			} {
				if want := []int{test.stranger, test.known, test.named, 200}[i]; status != want {
					t.Errorf("call %d: status %d, want %d", i, status, want)
				}
			}
			if warns := strings.Contains(p.log.String(), `level=WARN msg="everybody who reaches this server may do everything`); warns != test.warns {
				t.Errorf("it warns: %t, want %t\n%s", warns, test.warns, p.log)
			}
			if strings.Contains(p.log.String(), token) {
				t.Errorf("the token is in the log:\n%s", p.log)
			}
		})
	}
}

// A tokens file with a fault ends the start, with one line that says where and shows nothing of the line.
func TestFaultInTokensEndsTheStart(t *testing.T) {
	token := identity.NewToken()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("# callers\nci client default/* - "+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run(t, []string{"serve"}, "PORTMASTER_AUTH_TOKENS_FILE="+path)
	if code != 1 || !strings.Contains(stderr, "line 2: sha256") || strings.Count(stderr, "\n") != 1 || strings.Contains(stdout+stderr, token) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// The tokens that the page makes let their callers in, and no others.
func TestReadmeTokens(t *testing.T) {
	needs(t, "bash", "curl")
	s := steps(t, sectionTokens)
	p := startShell(t, "make build\n"+s[0].commands.text)
	shell := func(commands string) string {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.ReplaceAll(commands, "localhost:8080", p.addr))
		cmd.Dir, cmd.Env = p.cmd.Dir, append(withoutSettings(os.Environ()), "no_proxy=*")
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", commands, err)
		}
		return string(out)
	}
	if got, want := shell(s[1].commands.text), s[1].output.text; got != want {
		t.Errorf("%s: the commands print\n%s\nand the page shows\n%s", s[1].commands, got, want)
	}
	shell(steps(t, sectionStep)[0].commands.text)
	if lines := strings.Count(shell("cat tokens"), "\n"); lines != 3 {
		t.Errorf("the tokens file has %d lines, want 3", lines)
	}
	p.interrupt(t)
}
