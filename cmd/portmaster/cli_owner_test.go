package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portmaster/handlers/identity"
)

// Commands show a token. An operator lists what one owner has, and releases all of it; the owner itself may do so, and nobody else.
func TestOwnersOnTheCommandLine(t *testing.T) {
	t.Parallel()
	needs(t, "bash")
	tokens, lines := map[string]string{}, ""
	for name, role := range map[string]identity.Role{"root": identity.Operator, "ci": identity.Client, "dev": identity.Client} {
		tokens[name] = identity.NewToken()
		line, err := identity.Line(name, role, "default/*", "-", tokens[name])
		if err != nil {
			t.Fatal(err)
		}
		lines += line + "\n"
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, "PORTMASTER_AUTH_TOKENS_FILE="+path)
	const secret = "6f8ffc86-d98a-49ba-848a-a7cbaaea9360"
	for _, step := range []struct {
		who, line string
		code      int
		stdout    string
	}{
		{"root", "service define web 5000-5009 -q", 0, "web\n"},
		{"ci", "claim web a b c -q", 0, "5000\n5001\n5002\n"},
		{"ci", "offer web d", 0, ""},
		{"dev", "claim web x y -q", 0, "5004\n5005\n"},
		{"", "ls web -q", 6, ""},
		{"dev", "release web a", 6, ""},
		{"dev", "release web --owner ci", 6, ""},
		{"root", "ls web --owner ci -q", 0, "5000\n5001\n5002\n"},
		{"root", "ls web --owner ci --offers -q", 0, "5003\n"},
		{"root", "ls web --owner nobody -q", 0, ""},
		{"root", "release web --owner ci", 0, "3 released\n"},
		{"ci", "release web --owner ci", 0, "0 released\n"},
		{"dev", "release web --owner dev -q", 0, ""},
		{"root", "ls web -q", 0, ""},
		{"ci", "claim web job-1 job-2 --label job=4711 --label url=a=b -q", 0, ""},
		{"dev", "claim web x --label job=4711 -q", 0, ""},
		{"ci", "offer web job-3 --label job=4711", 0, ""},
		{"ci", "ls web --label job=4711 --name job-2 -o json | jq -c '.[].labels'", 0, `{"job":"4711","url":"a=b"}` + "\n"},
		{"ci", "ls web --offers --label job=4711 --name-prefix job- -o env | cut -d= -f1", 0, "PORT_JOB_3\n"},
		{"ci", "ls web --label job", 2, ""},
		{"ci", "claim web y --label job", 2, ""},
		{"ci", "claim web y --label job=1 --label job=2", 2, ""},
		{"ci", "claim web y --label Job=1", 2, ""},
		{"ci", "claim web z --label job=1 --label url=a --secret " + secret + " -q", 0, ""},
		{"ci", "label web z url=b=c- stage=test job- never- -o json --secret " + secret + " | jq -c .labels", 0, `{"stage":"test","url":"b=c-"}` + "\n"},
		{"ci", "get web z -o json | jq -c .labels", 0, `{"stage":"test","url":"b=c-"}` + "\n"},
		{"ci", "label web z stage=1", 2, ""},
		{"ci", "label web z stage --secret " + secret, 2, ""},
		{"ci", "label web z stage-=1 --secret " + secret, 2, ""},
		{"ci", "label web z - --secret " + secret, 2, ""},
		{"ci", "label web z stage- stage=1 --secret " + secret, 2, ""},
		{"ci", "label web z Stage=1 --secret " + secret, 2, ""},
		{"dev", "label web z stage=1 --secret " + secret, 6, ""},
		{"ci", "label web job-1 stage=1 --secret " + secret, 6, ""},
		{"ci", "label web never stage=1 --secret " + secret, 3, ""},
		{"ci", "release web --label job=4711", 0, "2 released\n"},
		{"dev", "release web --name-prefix x --label job=4711", 0, "1 released\n"},
		{"ci", "release web job-1 --label job=4711", 2, ""},
		{"ci", "release web --label job=4711 --fence 1", 2, ""},
		{"root", "release web", 2, ""},
		{"root", "release web x --owner dev", 2, ""},
		{"root", "release none --owner dev", 3, ""},
	} {
		code, stdout, stderr := p.shell(t, "PORTMASTER_TOKEN="+tokens[step.who]+" portmaster "+step.line)
		if code != step.code || step.stdout != "" && stdout != step.stdout {
			t.Errorf("%s: %s: exit code %d, want %d\n%q, want %q\n%s", step.who, step.line, code, step.code, stdout, step.stdout, stderr)
		}
		for _, token := range tokens {
			if strings.Contains(stdout+stderr+p.log.String(), token) {
				t.Errorf("%s: a token is shown", step.line)
			}
		}
	}
}
