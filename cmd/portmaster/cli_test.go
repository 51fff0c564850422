package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"portmaster/allocator/storetest"
)

// The command line for those who use a server, cli/, by the program itself and a server of the test's own.

// shell runs lines of sh in which portmaster is the program, and returns the exit code and what they wrote.
func (p *program) shell(t *testing.T, lines string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\n" + asProgram + "=1 exec '" + os.Args[0] + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "portmaster"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", lines)
	cmd.Dir = dir
	cmd.Env = append(withoutSettings(os.Environ()), "PATH="+dir+":"+os.Getenv("PATH"), "PORTMASTER_SERVER=http://"+p.addr)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// varies finds what no two runs have in common.
var varies = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{13,}|\d{4}-\d\d-\d\dT[0-9:.]+Z`)

// Each command line ends with this code and prints this, where V stands for what varies.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	for _, test := range []struct {
		line   string
		code   int
		stdout string
		stderr string // begins so, behind "portmaster: "
	}{
		{"service define ci 20000-20003 --description 'Build jobs' --cooldown 1.5m", 0, "NAME PORTS FREE OFFERED ALLOCATED COOLING WAITING AGE DESCRIPTION\nci 20000-20003 4 0 0 0 0 0s Build jobs\n", ""},
		{"service define ci 20000-20004 -q", 0, "ci\n", ""},
		{"service get ci -o env", 0, "PORTMASTER_SERVICE=ci\nPORTMASTER_START=20000\nPORTMASTER_END=20004\nPORTMASTER_FREE=5\nPORTMASTER_WAITING=0\n", ""},
		{"service ls --pool none -o json", 0, "[]\n", ""},
		{"service ls -o env", 0, "SERVICE_CI=20000-20004\n", ""},
		{"service ls -q", 0, "ci\n", ""},
		{"service define web 20004-20010", 4, "", "RANGE_OVERLAP: "},
		{"service define odd 20005-20009,20011 --exclude 20006-20007 -q", 0, "odd\n", ""},
		{"service change odd --cooldown 2m --exclude 20009", 0, "NAME PORTS FREE OFFERED ALLOCATED COOLING WAITING AGE DESCRIPTION\nodd 20005,20008,20011 3 0 0 0 0 0s\n", ""},
		{"service change odd 20005-20008,20010", 0, "NAME PORTS FREE OFFERED ALLOCATED COOLING WAITING AGE DESCRIPTION\nodd 20005-20008,20010 5 0 0 0 0 0s\n", ""},
		{"service change odd --exclude x", 2, "", `"x" is no range of ports`},
		{"service change odd --default-lease 1h --max-lease 1d -o json | jq -c '[.default_lease, .max_lease]'", 0, "[3600,86400]\n", ""},
		{"service change odd --default-lease 0 -o json | jq -c '[.default_lease, .max_lease]'", 0, "[null,86400]\n", ""},
		{"claim odd x --lease 2d", 2, "", "INVALID: the request is malformed or out of bounds; lease: "},
		{"service define odd 20005-20009 --max-lease 60 --default-lease 61", 2, "", "INVALID: the request is malformed or out of bounds; default_lease: "},
		{"service change odd --pick hash", 2, "", "INVALID: "},
		{"service change odd --pick name -o json | grep -o '\"pick\":\"name\"'", 0, `"pick":"name"` + "\n", ""},
		{"claim odd rtp --align 2 --count 2 -q", 0, "20006\n", ""},
		{"claim odd one --align 2 --port 20005", 2, "", "INVALID: "},
		{"release odd rtp", 0, "", ""},
		{"service rm odd", 0, "", ""},
		{"service define web 20004-", 2, "", `"20004-" is no range of ports`},
		{"service define web 40000-50000", 2, "", "INVALID: the request is malformed or out of bounds; end: "},
		{"service define high 40000-40001 --no-headers --description $'\\e[31mred'", 0, "high 40000-40001 2 0 0 0 0 0s \uFFFD[31mred\n", "warning: "},
		{"free ci --limit 2", 0, "PORT\n20000\n20001\n", ""},
		{"free ci -q", 0, "20000\n20001\n20002\n20003\n20004\n", ""},
		{"free ci --limit 1001", 2, "", "INVALID: the request is malformed or out of bounds; limit: "},
		{"waiting ci", 0, "NAME PORTS REQUESTS AGE\n", ""},
		{"waiting none", 3, "", "SERVICE_NOT_FOUND: "},
		{"free none", 3, "", "SERVICE_NOT_FOUND: "},
		{"claim ci lost >/dev/full", 1, "", "write /dev/stdout: no space left on device"},
		{"get ci lost", 3, "", "PORT_NOT_FOUND: "},
		{"service get none", 3, "", "SERVICE_NOT_FOUND: "},

		{"claim ci a --no-headers", 0, "a 20000 - 0s V V\n", ""},
		{"claim ci a", 4, "", "NAME_TAKEN: a has port 20000"},
		{"claim ci a --existing -o env", 0, "PORT=20000\nPORTMASTER_SERVICE=ci\nPORTMASTER_NAME=a\nPORTMASTER_COUNT=1\nPORTMASTER_FENCE=V\n", ""},
		{"claim ci a --existing >/dev/full", 1, "", "write /dev/stdout: no space left on device"},
		{"get ci a -q", 0, "20000\n", ""},
		{"offer ci a --existing", 2, "", "unknown flag: --existing"},
		{"claim ci b --lease 1d -o env", 0, "PORT=20001\nPORTMASTER_SERVICE=ci\nPORTMASTER_NAME=b\nPORTMASTER_COUNT=1\nPORTMASTER_FENCE=V\nPORTMASTER_EXPIRES=V\nPORTMASTER_SECRET=V\n", ""},
		{"claim ci c.1 c-1 -o env", 2, "", "two of the names would be the same variable"},
		{"ls ci", 0, "NAME PORT EXPIRES AGE FENCE\na 20000 - 0s V\nb 20001 24h 0s V\n", ""},
		{"offer ci d --count 2 --lease 90", 0, "NAME PORT EXPIRES AGE SECRET\nd 20002-20003 30m 0s V\n", ""},
		{"ls ci --offers -o json", 0, `[{"pool":"default","service":"ci","name":"d","port":20002,"count":2,"created":"V","expires":"V","lease":90}]` + "\n", ""},
		{"ls ci --offers -q", 0, "20002\n", ""},
		{"claim ci e f --no-headers", 5, "", "EXHAUSTED: "},
		{"claim ci e --port 20001", 4, "", "PORT_TAKEN: "},
		{"claim ci e --port 20001 --wait 1s", 2, "", "INVALID: "},
		{"claim ci e -q", 0, "20004\n", ""},
		{"claim ci f --wait 0.3", 5, "", "EXHAUSTED: "},
		{"get ci 20003", 3, "", "PORT_NOT_FOUND: "},
		{"get ci 20001 -o json", 0, `{"pool":"default","service":"ci","name":"b","port":20001,"created":"V","fence":V,"expires":"V"}` + "\n", ""},
		{"ls ci -o env", 0, "PORT_A=20000\nPORT_B=20001\nPORT_E=20004\n", ""},
		{"service rm ci", 4, "", "SERVICE_IN_USE: "},
		{"accept ci", 2, "", "there is no SECRET, and no PORTMASTER_SECRET"},
		{"accept ci 6f8ffc86-d98a-49ba-848a-a7cbaaea9360", 3, "", "OFFER_NOT_FOUND: "},
		{"renew ci b", 2, "", "there is no --secret"},
		{"renew ci b --secret 6f8ffc86-d98a-49ba-848a-a7cbaaea9360", 6, "", "SECRET_MISMATCH: "},
		{"release ci b --secret 6f8ffc86-d98a-49ba-848a-a7cbaaea9360", 6, "", "SECRET_MISMATCH: "},
		{"pools -q >/dev/null; PORTMASTER_SECRET=$(cat /proc/sys/kernel/random/uuid) portmaster release ci b", 6, "", "SECRET_MISMATCH: "},
		{"pools -q >/dev/null; PORTMASTER_SECRET=$(cat /proc/sys/kernel/random/uuid) portmaster reject ci", 3, "", "OFFER_NOT_FOUND: "},
		{"pools -q >/dev/null; PORTMASTER_SECRET=$(cat /proc/sys/kernel/random/uuid) portmaster accept ci", 3, "", "OFFER_NOT_FOUND: "},
		{"pools -q >/dev/null; PORTMASTER_POOL=none portmaster service get ci", 3, "", "SERVICE_NOT_FOUND: "},
		{"release ci b --fence 1", 4, "", "PRECONDITION_FAILED: "},
		{"release ci b --fence 1 --secret x", 2, "", "if any flags in the group"},
		{"release ci --label job=1 --in-use", 2, "", "--secret, --fence and --in-use are of one allocation"},
		{"release ci 20001 --in-use", 0, "", ""},
		{"service get ci --no-headers", 0, "ci 20000-20004 0 2 2 1 0 0s\n", ""},
		{"release ci 20001", 3, "", "PORT_NOT_FOUND: "},
		{"release ci ..", 2, "", "INVALID: the request was not sent; port: "},
		{"claim high 40001 --port 40000 -q", 0, "40000\n", ""},
		{"get high 40001", 3, "", "PORT_NOT_FOUND: "},
		{"get high 0", 2, "", "\"0\" is no port; a name of digits is given by --name"},
		{"get high 123456789012345678901234", 2, "", "\"123456789012345678901234\" is no port; a name of digits is given by --name"},
		{"get high", 2, "", "name an allocation: by NAME, PORT or --name"},
		{"get high x --name 40001", 2, "", "--name cannot be combined with NAME or PORT"},
		{"get high --name 40001 -o env", 0, "PORT=40000\nPORTMASTER_SERVICE=high\nPORTMASTER_NAME=40001\nPORTMASTER_COUNT=1\nPORTMASTER_FENCE=V\n", ""},
		{"renew high --name 40001 --secret 6f8ffc86-d98a-49ba-848a-a7cbaaea9360", 6, "", "SECRET_MISMATCH: "},
		{"release high --name 40001 --label a=b", 2, "", "--owner, --name-prefix and --label cannot be combined with a name or a port"},
		{"release high --name 40001", 0, "", ""},
		{"release high --name 40001", 3, "", "PORT_NOT_FOUND: "},
		{"claim high a=b c:~/d@e+f -o env", 0, "PORT_A_B=40000\nSECRET_A_B=V\nPORT_C___D_E_F=40001\nSECRET_C___D_E_F=V\n", ""},
		{"pools -q >/dev/null; eval \"$(portmaster get high c:~/d@e+f -o env)\"; echo $PORTMASTER_NAME", 0, "c:~/d@e+f\n", ""},
		{"release high a=b", 0, "", ""},
		{"release high c:~/d@e+f", 0, "", ""},
		{"claim high x.1 y -o env", 0, "PORT_X_1=40000\nSECRET_X_1=V\nPORT_Y=40001\nSECRET_Y=V\n", ""},
		{"release high x.1", 0, "", ""},
		{"release high y -q", 0, "", ""},
		{"pools --no-headers", 0, "default 2\n", ""},
		{"pools -o env", 0, "POOL_DEFAULT=2\n", ""},
		{"service rm high -q", 0, "", ""},

		{"claim ci", 2, "", "requires at least 2 arg(s), only received 1; see portmaster claim --help"},
		{"claim ci x --lease 0", 2, "", "--lease must be more than 0"},
		{"claim ci x --count 0", 2, "", "--count must be more than 0"},
		{"claim ci x --align 0", 2, "", "--align must be more than 0"},
		{"claim ci x y --port 20001", 2, "", "--port, --prefer and --secret are for one NAME"},
		{"claim ci x --lease soon", 2, "", `invalid argument "soon" for "--lease" flag: must be seconds`},
		{"claim ci x --what", 2, "", "unknown flag: --what; see portmaster claim --help"},
		{"ls ci -o yaml", 2, "", "--output must be table, json or env"},
		{"service nothing", 2, "", `there is no command "nothing" of portmaster service`},
		{"nothing", 2, "", `unknown command "nothing"`},
		{"pools --server localhost:8080", 2, "", "the address of the server must be"},
		{"pools --server http://127.0.0.1:1", 75, "", "UNAVAILABLE: the server cannot be reached: dial tcp 127.0.0.1:1"},
	} {
		code, stdout, stderr := p.shell(t, "portmaster "+test.line)
		stdout = varies.ReplaceAllString(stdout, "V")
		stdout = regexp.MustCompile(`\b(\d{1,2}s|[1-9]m)\b`).ReplaceAllString(stdout, "0s") // an age, of less than ten minutes
		if test.line[len(test.line)-4:] != "json" {
			stdout = regexp.MustCompile(" +").ReplaceAllString(stdout, " ")
		}
		says, begins := strings.CutPrefix(stderr, "portmaster: "+test.stderr)
		if code != test.code || stdout != test.stdout || test.stderr == "" && stderr != "" || test.stderr != "" && !begins || strings.Count(says, "\n") > 1 {
			t.Errorf("%s: exit code %d, want %d\nstdout %q\nwant   %q\nstderr %q", test.line, code, test.code, stdout, test.stdout, stderr)
		}
	}
}

// Every command has an example in its help, and the examples work, one after the other, on one server.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	needs(t, "bash", "jq")
	p := startProgram(t)
	var lines []string
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		switch {
		case cmd.Name() == "help":
			return
		case cmd.HasParent() && cmd.Example == "":
			t.Errorf("%s has no example", cmd.CommandPath())
		case cmd.HasParent() && cmd.Long == "":
			t.Errorf("%s has no description", cmd.CommandPath())
		}
		if cmd.Name() != "exec" { // its own tests run those
			lines = append(lines, cmd.Example)
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(command())
	order := func(words ...string) (script string) {
		for i, example := range lines {
			for _, word := range words {
				if strings.Contains(example, "portmaster "+word) {
					script += "(" + example + ")\n"
					lines[i] = ""
				}
			}
		}
		return script
	}
	interrupted := "interrupted() { timeout --foreground --preserve-status -s INT 1 \"$@\" || [ $? = 130 ]; }\n"
	script := "set -ex\n" + interrupted + order("service define") + order("claim") + order("") + order("release") + order("service rm")
	script = strings.NewReplacer( // what stands for the server, and for Redis
		"HTTP_ADDR=:8080", "HTTP_ADDR="+p.addr, "portmaster bench", "portmaster bench --url http://"+p.addr,
		"redis://localhost:6379", "redis://"+storetest.Mini(t).Addr,
		"portmaster watch", "interrupted portmaster watch",
		"portmaster serve", "PORTMASTER_HTTP_ADDR=127.0.0.1:0 timeout --foreground --preserve-status 2 portmaster serve",
	).Replace(script)
	if code, stdout, stderr := p.shell(t, script); code != 0 || strings.Count(script, "\n") < 20 {
		t.Errorf("exit code %d\n%s\n%s\n%s", code, script, stdout, stderr)
	}
}

// A shell completes services, instance names, pools and formats from what the server has.
func TestCompletion(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	p.must(t, 201, "PUT", "/v1/services/ci", `{"start":20000,"end":20003,"description":"jobs"}`)
	p.must(t, 201, "PUT", "/v1/pools/other/services/web", `{"start":20000,"end":20003}`)
	p.must(t, 201, "POST", "/v1/services/ci/ports", `{"name":"job-1"}`)
	for line, want := range map[string]string{
		"claim ''":                       "ci\t20000-20003 jobs",
		"claim --pool other ''":          "web\t20000-20003 ",
		"claim ci ''":                    "",
		"get ci ''":                      "job-1\t20000",
		"history ''":                     "ci\t20000-20003 jobs",
		"watch ''":                       "ci\t20000-20003 jobs",
		"watch -o ''":                    "table json",
		"release ci j":                   "job-1\t20000",
		"renew none ''":                  "",
		"exec ''":                        "ci\t20000-20003 jobs",
		"service rm ''":                  "ci\t20000-20003 jobs",
		"ls --pool ''":                   "default other",
		"ls -o ''":                       "table json env",
		"ls --server http://127.0.0.1:1": "",
		"ls --server nonsense ''":        "",
	} {
		_, stdout, _ := p.shell(t, "portmaster __complete "+line)
		got, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(stdout, "\n", " ")), ":")
		if strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// Who interrupts a command that waits leaves the line, and nothing is said of it unless stderr is a terminal.
func TestInterruptedClaim(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	p.must(t, 201, "PUT", "/v1/services/ci", `{"start":20000,"end":20000}`)
	p.must(t, 201, "POST", "/v1/services/ci/ports", `{"name":"first"}`)
	waiting := func() (n int) {
		var s struct{ Waiting int }
		if err := json.Unmarshal([]byte(p.must(t, 200, "GET", "/v1/services/ci", "")), &s); err != nil {
			t.Fatal(err)
		}
		return s.Waiting
	}
	cmd := programCommand([]string{"claim", "ci", "second", "--wait", "1m"}, "PORTMASTER_SERVER=http://"+p.addr)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the call waits", func() bool { return waiting() == 1 })
	time.Sleep(2500 * time.Millisecond) // longer than until progress would be told
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(stderr.String(), "portmaster: ") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("exit code %d: %q", code, stderr.String())
	}
	if n := waiting(); n != 0 {
		t.Errorf("%d calls wait", n)
	}
}
