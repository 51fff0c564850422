package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// What is exported is imported into another server, in full or in part, and a repeated import changes nothing.
func TestExportAndImport(t *testing.T) {
	t.Parallel()
	from, to := startProgram(t), startProgram(t)
	from.must(t, 201, "PUT", "/v1/services/web", `{"start":5000,"end":5009,"cooldown":1.5}`)
	from.must(t, 201, "PUT", "/v1/pools/eu/services/web", `{"start":5000,"end":5009}`)
	from.must(t, 201, "POST", "/v1/services/web/ports", `[{"name":"ann"},{"name":"ben","lease":"1h"}]`)
	dir := t.TempDir()
	file := filepath.Join(dir, "ports.jsonl")
	if code, _, stderr := from.shell(t, "portmaster export --all > "+file); code != 0 {
		t.Fatalf("export exits with %d: %s", code, stderr)
	}
	wants := func(line string, wantCode int, want string) {
		t.Helper()
		code, stdout, stderr := to.shell(t, "cd "+dir+" && "+line)
		if code != wantCode || !strings.Contains(stdout+stderr, want) {
			t.Errorf("%s exits with %d and says %s%s, want %d and %q", line, code, stdout, stderr, wantCode, want)
		}
	}
	wants("portmaster import ports.jsonl --dry-run", 0, "claim default/web ann 5000\n")
	wants("portmaster import ports.jsonl --dry-run -q", 0, "")
	wants("portmaster service ls -q", 0, "")
	wants("portmaster import ports.jsonl", 0, "2 services defined, 2 allocations claimed; 0 were there already")
	wants("portmaster import - < ports.jsonl", 0, "0 services defined, 0 allocations claimed; 4 were there already")
	wants("portmaster get web ben -q", 0, "5001\n")
	wants("portmaster service get web --pool eu -q", 0, "web\n")
	wants("portmaster import http://"+from.addr+"/v1", 0, "3 were there already")
	wants(`echo '{"service":{"name":"a b","start":1,"end":2}}' | portmaster import -`, 4, "line 1: default/a b: ")
	wants(`(echo '{"service":{"name":"a b","start":1,"end":2}}'; echo '{"service":{"name":"db","start":6000,"end":6001}}') | portmaster import - --partly`, 0, "1 services defined")
	wants("echo x | portmaster import -", 2, "line 1: ")
	wants("portmaster import nowhere", 1, "no such file")
	wants("portmaster import http://127.0.0.1:1", 75, "")
	info, err := os.Stat(filepath.Join(dir, "portmaster-secrets.jsonl"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secrets are in %v, %v", info, err)
	}
}

// Sockets of this machine are compared with the allocations: a port that nobody has is adopted, one that is silent is told.
func TestCheckLocal(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	var listener net.Listener
	var packets net.PacketConn
	err := errors.New("no port")
	for port := 20000; err != nil && port < 30000; port++ { // a service cannot have all that the system may choose
		listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = errors.New("no port")
	for port := 30000; err != nil && port < 32000; port++ {
		packets, err = net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	dir := t.TempDir()
	for i, address := range []net.Addr{listener.Addr(), packets.LocalAddr()} {
		_, port, _ := net.SplitHostPort(address.String())
		pool := fmt.Sprint("p", i)
		p.must(t, 201, "PUT", "/v1/pools/"+pool+"/services/dev", `{"start":`+port+`,"end":`+port+`}`)
		for _, step := range []struct {
			line string
			code int
			want string
		}{
			{"portmaster check --local --pool " + pool, 1, "dev " + port + ": "},
			{"portmaster check --local --adopt --pool " + pool, 0, port + ": claimed for "},
			{"portmaster check --local --pool " + pool, 0, ""},
			{"portmaster check --adopt", 2, "--adopt needs --local"},
			{"portmaster check --local --repair", 2, "--repair cannot be combined"},
		} {
			if code, stdout, stderr := p.shell(t, "cd "+dir+" && "+step.line); code != step.code || !strings.Contains(stdout+stderr, step.want) {
				t.Errorf("%s exits with %d and says %s%s", step.line, code, stdout, stderr)
			}
		}
	}
	packets.Close()
	if code, stdout, _ := p.shell(t, "portmaster check --local --pool p1"); code != 1 || !strings.Contains(stdout, "nothing on this machine listens") {
		t.Errorf("a silent port: it exits with %d and says %s", code, stdout)
	}
}

// An agent talks with portmaster mcp over its standard input and output, and what it claimed is free when the process ends.
func TestMCP(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	p.must(t, 201, "PUT", "/v1/services/dev", `{"start":5000,"end":5001}`)
	for _, end := range []string{"closed", "SIGTERM"} {
		cmd := exec.Command(os.Args[0], "mcp", "--lease", "5s", "--server", "http://"+p.addr)
		cmd.Env = append(withoutSettings(os.Environ()), asProgram+"=1")
		session, err := sdk.NewClient(&sdk.Implementation{Name: "agent"}, nil).Connect(t.Context(), &sdk.CommandTransport{Command: cmd, TerminateDuration: 10 * time.Second}, nil)
		if err != nil {
			t.Fatal(err)
		}
		tools, err := session.ListTools(t.Context(), nil)
		if err != nil || len(tools.Tools) != 4 {
			t.Errorf("it has the tools %v, %v", tools, err)
		}
		result, err := session.CallTool(t.Context(), &sdk.CallToolParams{Name: "claim_port", Arguments: map[string]any{"service": "dev", "name": "web-" + end}})
		text, _ := json.Marshal(result)
		if err != nil || result.IsError || !strings.Contains(string(text), `"port":5000`) {
			t.Fatalf("a claim is answered with %s, %v", text, err)
		}
		if end == "SIGTERM" {
			cmd.Process.Signal(os.Interrupt)
		} else if err := session.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "the port is free", func() bool { return p.status(t, "/v1/services/dev/ports/5000") == 404 })
		session.Close()
	}
}
