package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// section is a part of a page whose commands are run, by the test that is named below.
type section struct{ page, heading string }

// The sections with commands.
var (
	sectionRun      = section{readmePage, "Run it"}                       // TestReadmeRun
	sectionWalk     = section{readmePage, "A walk with curl"}             // TestReadmeWalk
	sectionBack     = section{readmePage, "Give the ports back"}          // TestReadmeWalk
	sectionRedis    = section{readmePage, "Put it on Redis"}              // TestReadmeRedis
	sectionReplicas = section{readmePage, "Run replicas"}                 // TestReadmeReplicas
	sectionUsers    = section{settingsPage, "Users of Redis"}             // TestReadmeUsers
	sectionTokens   = section{settingsPage, "Tokens"}                     // TestReadmeTokens
	sectionStep     = section{operatorsPage, "Tokens"}                    // TestReadmeTokens
	sectionLook     = section{statePage, "Read the state with redis-cli"} // TestReadmeWalk, on Redis
	sectionCheck    = section{statePage, "Check and repair the keys"}     // TestCheck
	sectionBench    = section{costPage, "Put a load on your own server"}  // TestReadmeBench
	sectionFiles    = section{operatorsPage, "The files"}                 // deployments/check
	sectionUpgrade  = section{operatorsPage, "Upgrade and roll back"}     // the fault suite
	sectionBackup   = section{operatorsPage, "Backup and restore"}        // the fault suite
)

// sectionsLife are run one after the other, by TestReadmeWalk.
var sectionsLife = []section{
	{apiPage, "The whole life of a port"}, {apiPage, "Claim a port"}, {apiPage, "Lease and renew"}, {apiPage, "Release with the secret"},
	{apiPage, "Cooldown, and an exact port"}, {apiPage, "Several ports at once"}, {apiPage, "A block of ports"},
	{apiPage, "Reject a port that is in use"}, {apiPage, "Wait for a port"},
}

func TestReadmeCommandsAreRun(t *testing.T) {
	run := append([]section{
		sectionRun, sectionWalk, sectionBack, sectionRedis, sectionReplicas, sectionUsers, sectionLook, sectionCheck, sectionBench,
		sectionTokens, sectionStep, sectionFiles, sectionUpgrade, sectionBackup, sectionCompose,
	}, slices.Concat(sectionsLife, sectionsExec, sectionsCommands)...)
	for _, page := range readPages(t) {
		for _, b := range page.blocks {
			if b.lang == "sh" && !slices.Contains(run, b.section) {
				t.Errorf("%s: nothing runs the commands in section %q", b, b.section.heading)
			}
			if b.lang != "sh" && regexp.MustCompile(`(?m)^(curl|redis-cli|make) `).MatchString(b.text) {
				t.Errorf("%s: commands belong in a block of sh", b)
			}
		}
	}
}

// needs skips a test where a command is missing that a page tells to use, unless every part has to be there.
func needs(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if _, err := exec.LookPath(command); err != nil {
			if os.Getenv(storetest.RequireRedis) != "" {
				t.Fatal(err)
			}
			t.Skipf("%s is not on the PATH: the commands of the pages are not run", command)
		}
	}
}

func TestReadmeWalk(t *testing.T) {
	needs(t, "bash", "curl", "jq")
	if err := exec.Command("curl", "--json", "{}", "--version").Run(); err != nil {
		t.Skip("curl is older than 7.82: the commands of the pages are not run")
	}
	t.Run("embedded store", func(t *testing.T) {
		p := startProgram(t)
		walk(t, p, "", steps(t, slices.Concat([]section{sectionWalk, sectionBack}, sectionsLife)...))
	})
	t.Run("redis", func(t *testing.T) {
		store, _, _ := storetest.Private(t)
		needs(t, "redis-cli")
		p := startProgram(t, store.Settings()...)
		walk(t, p, store.Addr, steps(t, slices.Concat([]section{sectionWalk}, sectionsLife, []section{sectionLook, sectionBack})...))
	})
}

// walk runs the commands in one shell, word for word, and compares what they print with what the page shows. Where
// they call localhost:8080 and Redis's own port, the shell calls the given servers instead, Redis as the operator.
func walk(t *testing.T, p *program, redisAddr string, steps []step) {
	t.Helper()
	host, port, _ := net.SplitHostPort(redisAddr)
	follow(t, exec.CommandContext(t.Context(), "bash"), fmt.Sprintf(`
		curl() { command curl --noproxy '*' "${@//localhost:8080/%s}"; }
		redis-cli() { REDISCLI_AUTH='%s' command redis-cli --user operator -h '%s' -p '%s' "$@"; }
		`, p.addr, storetest.Password, host, port), steps)
}

// follow runs the commands in one shell, word for word, after what comes before them, and compares what they print with
// what the page shows.
func follow(t *testing.T, shell *exec.Cmd, before string, steps []step) {
	t.Helper()
	const mark = "--- next step ---"
	script := "set -e\n" + before
	for _, s := range steps {
		script += "\n" + s.commands.text + "printf '\\n" + mark + "'\n"
	}
	shell.Dir = t.TempDir()
	shell.Args = append(shell.Args, "-c", script)
	out, err := shell.CombinedOutput()
	outputs := strings.Split(string(out), mark)
	for i, s := range steps {
		if i >= len(outputs)-1 {
			t.Fatalf("%s: the commands failed: %v: %s", s.commands, err, outputs[i])
		}
		if got, want := normal(outputs[i]), normal(s.output.text); got != want {
			t.Errorf("%s: the commands print\n%s\nand the page shows\n%s", s.commands, got, want)
		}
	}
}

// volatile is what differs from one run to the next.
var volatile = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`), "TIME"},
	{regexp.MustCompile(`\b1[789]\d{14}\b`), "FENCE"},
	{regexp.MustCompile(`\b[0-9a-f]{16}-\d+/`), "TICKET/"},
	{regexp.MustCompile(`(?m)^[0-9a-f]{16}$`), "SERVER"},
	{regexp.MustCompile(`\b1[789]\d{11}\b`), "UNIX-MS"},
	{regexp.MustCompile(`(?m)^1(7\d\d|800)$`), "SECONDS-OF-30-MINUTES"},
	{regexp.MustCompile(`comes free in \d+ ms`), "comes free in a while"},
	{regexp.MustCompile(`address=\S+`), "address=ADDRESS"},
	{regexp.MustCompile(`version=\S+`), "version=VERSION"},
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "http://ADDRESS"},
}

func normal(output string) string {
	for _, v := range volatile {
		output = v.pattern.ReplaceAllLiteralString(output, v.name)
	}
	return strings.TrimSpace(output)
}

func TestReadmeRun(t *testing.T) {
	s := steps(t, sectionRun)
	p := startShell(t, s[0].commands.text)
	eventually(t, "/readyz is 200", func() bool { return p.status(t, "/readyz") == 200 })
	if got, want := normal(p.log.String()), normal(s[0].output.text); got != want {
		t.Errorf("it says\n%s\nand the page shows\n%s", got, want)
	}
	shell := exec.CommandContext(t.Context(), "bash", "-c", s[1].commands.text)
	shell.Dir, shell.Env = p.cmd.Dir, append(withoutSettings(os.Environ()), "PORTMASTER_SERVER=http://"+p.addr)
	if out, err := shell.CombinedOutput(); err != nil || normal(string(out)) != normal(s[1].output.text) {
		t.Errorf("%s: %v: the commands print\n%s\nand the page shows\n%s", s[1].commands, err, out, s[1].output.text)
	}
	p.interrupt(t)
}

func TestReadmeRedis(t *testing.T) {
	store := storetest.Open(t)
	script := steps(t, sectionRedis)[0].commands.text
	p := startShell(t, strings.Replace(script, "localhost:6379", store.Addr, 1))
	p.must(t, 201, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`)
	if start := store.Admin.HGet(t.Context(), "portmaster:{default}:service:django", "start").Val(); start != "5000" {
		t.Errorf("the service is not in the Redis that the URL names")
	}
	p.interrupt(t)
}

// The users of the page's file get in with the password that it made, and nobody else does.
func TestReadmeUsers(t *testing.T) {
	needs(t, "bash", "sed", "sha256sum")
	s := steps(t, sectionUsers)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	making := exec.Command("bash", "-c", "set -e\n"+strings.Replace(s[0].commands.text, "deployments/", root+"/deployments/", 1))
	making.Dir = dir
	if out, err := making.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", s[0].commands, err, out)
	}
	store := storetest.Open(t, "--aclfile", filepath.Join(dir, "users.acl"))
	if err := store.Admin.Get(t.Context(), "portmaster:pools").Err(); !redis.HasErrorPrefix(err, "NOAUTH") {
		t.Errorf("somebody who does not log in may read: %v", err)
	}
	serving := strings.NewReplacer("localhost:6379", store.Addr, "FILE=password", "FILE="+dir+"/password").Replace(s[1].commands.text)
	p := startShell(t, "make build\n"+serving)
	works(t, p, "default")
	p.interrupt(t)
}

// The commands run in a network of their own, where their ports are free, and among processes of their own: none that they
// start outlives the shell, nor the shell this test.
func TestReadmeReplicas(t *testing.T) {
	needs(t, "bash", "make", "curl", "redis-cli", "redis-server", "/usr/sbin/haproxy", "ip", "mount")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("bash")
	shell.Env = withoutMake(withoutSettings(os.Environ()))
	shell.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if uid := os.Getuid(); uid != 0 { // only root may make these, so be root among users of its own, too
		shell.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		shell.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		shell.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // the signal comes when the thread that started the shell ends
	defer runtime.UnlockOSThread()
	follow(t, shell, fmt.Sprintf(`
		mount --make-rprivate /
		mount -t proc proc /proc
		ip link set lo up
		curl() { command curl --noproxy '*' "$@"; }
		make() { command make --no-print-directory -C '%s' BIN="$PWD/bin" STATE="$PWD/.local" "$@" | sed "/go build/d; s#$PWD/##"; }
		`, root), steps(t, sectionReplicas))
}

func TestReadmeBench(t *testing.T) {
	s := steps(t, sectionBench)[0]
	p := startProgram(t)
	args := strings.Fields(strings.NewReplacer("localhost:8080", p.addr, "10s", "500ms").Replace(s.commands.text))
	code, stdout, stderr := run(t, args[1:])
	if got, want := labels(stdout), labels(s.output.text); code != 0 || got != want {
		t.Errorf("it exits with %d and prints\n%s\nand the page shows\n%s\n%s", code, got, want, stderr)
	}
}

// labels returns a table without its figures.
func labels(table string) string {
	return regexp.MustCompile(`[ \d.]+`).ReplaceAllString(table, " ")
}

// startShell runs commands as if in the root of the repository, but builds into a folder of the test's own, and waits
// until the server they start listens.
func startShell(t *testing.T, commands string) *program {
	t.Helper()
	needs(t, "bash", "make")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`set -e
		make() { command make --no-print-directory -C '%s' BIN="$PWD/bin" "$@"; }
		%s`, root, commands)
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(withoutMake(withoutSettings(os.Environ())), "PORTMASTER_HTTP_ADDR=127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return startCommand(t, cmd, 5*time.Minute) // it builds the program first
}

// withoutMake leaves out what a make that runs the tests tells its children.
func withoutMake(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool {
		return strings.HasPrefix(entry, "MAKE") || strings.HasPrefix(entry, "MFLAGS=")
	})
}

// interrupt does what ctrl-C in a terminal does, and waits until the server has stopped.
func (p *program) interrupt(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server says that it stopped", func() bool { return strings.Contains(p.log.String(), "msg=stopped") })
	p.wait(t)
}
