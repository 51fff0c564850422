package main

import (
	"flag"
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
	"portmaster/config"
)

var writeReadme = flag.Bool("write-readme", false, "write the table of settings into README.md")

const readmePath = "../../README.md"

// block is a fenced block of the README.
type block struct {
	section, lang, text string
	line                int
}

// readme returns the README and its fenced blocks.
func readme(t *testing.T) (text string, blocks []block) {
	t.Helper()
	file, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	var section string
	var open *block
	for i, line := range strings.Split(string(file), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{section: section, lang: fence, line: i + 1}
		case isFence:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "#"):
			section = strings.TrimLeft(line, "# ")
		}
	}
	return string(file), blocks
}

// step is a block of commands and what the README shows of their output.
type step struct{ commands, output block }

// steps returns the commands of the given sections.
func steps(t *testing.T, sections ...string) []step {
	t.Helper()
	var found []step
	_, blocks := readme(t)
	for _, section := range sections {
		n := len(found)
		for i, b := range blocks {
			if b.section != section || b.lang != "sh" {
				continue
			}
			s := step{commands: b}
			if i+1 < len(blocks) && blocks[i+1].section == section && blocks[i+1].lang != "sh" {
				s.output = blocks[i+1]
			}
			found = append(found, s)
		}
		if len(found) == n {
			t.Fatalf("the README's section %q has no commands", section)
		}
	}
	return found
}

// The sections whose commands are run, each by the test that is named.
const (
	sectionRun      = "Run it"                      // TestReadmeRun
	sectionWalk     = "A walk with curl"            // TestReadmeWalk
	sectionBack     = "Give the ports back"         // TestReadmeWalk
	sectionRedis    = "Keep the state in Redis"     // TestReadmeRedis
	sectionUsers    = "A user of its own in Redis"  // TestReadmeUsers
	sectionReplicas = "Run it as several replicas"  // TestReadmeReplicas
	sectionLook     = "Look into it with redis-cli" // TestReadmeWalk, on Redis
	sectionBench    = "What a call costs"           // TestReadmeBench
)

// sectionsLife are run one after the other, by TestReadmeWalk.
var sectionsLife = []string{
	"The whole life of a port", "Claim", "Lease and renew", "Release by its holder", "Cool-down, and a certain port", "Many at once",
	"A block", "Reject as in use", "Wait in line",
}

func TestReadmeCommandsAreRun(t *testing.T) {
	_, blocks := readme(t)
	run := append([]string{sectionRun, sectionWalk, sectionBack, sectionRedis, sectionUsers, sectionReplicas, sectionLook, sectionBench},
		sectionsLife...)
	for _, b := range blocks {
		if b.lang == "sh" && !slices.Contains(run, b.section) {
			t.Errorf("README.md:%d: nothing runs the commands in section %q", b.line, b.section)
		}
		if b.lang != "sh" && regexp.MustCompile(`(?m)^(curl|redis-cli|make) `).MatchString(b.text) {
			t.Errorf("README.md:%d: commands belong in a block of sh", b.line)
		}
	}
}

// needs skips a test where a command is missing that the README tells to use, unless every part has to be there.
func needs(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if _, err := exec.LookPath(command); err != nil {
			if os.Getenv(storetest.RequireRedis) != "" {
				t.Fatal(err)
			}
			t.Skipf("%s is not on the PATH: the README's commands are not run", command)
		}
	}
}

func TestReadmeWalk(t *testing.T) {
	needs(t, "bash", "curl", "jq")
	if err := exec.Command("curl", "--json", "{}", "--version").Run(); err != nil {
		t.Skip("curl is older than 7.82: the README's commands are not run")
	}
	t.Run("embedded store", func(t *testing.T) {
		p := startProgram(t)
		walk(t, p, "", steps(t, slices.Concat([]string{sectionWalk, sectionBack}, sectionsLife)...))
	})
	t.Run("redis", func(t *testing.T) {
		store, _, _ := storetest.Private(t)
		needs(t, "redis-cli")
		p := startProgram(t, store.Settings()...)
		walk(t, p, store.Addr, steps(t, slices.Concat([]string{sectionWalk}, sectionsLife, []string{sectionLook, sectionBack})...))
	})
}

// walk runs the commands in one shell, word for word, and compares what they print with what the README shows. Where
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
// what the README shows.
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
			t.Fatalf("README.md:%d: the commands failed: %v: %s", s.commands.line, err, outputs[i])
		}
		if got, want := normal(outputs[i]), normal(s.output.text); got != want {
			t.Errorf("README.md:%d: the commands print\n%s\nand the README shows\n%s", s.commands.line, got, want)
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
		t.Errorf("it says\n%s\nand the README shows\n%s", got, want)
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

// The users of the README's file get in with the password that it made, and nobody else does.
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
		t.Fatalf("README.md:%d: %v: %s", s[0].commands.line, err, out)
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

// Each URL of the README is one that the server takes, for the kind of Redis that stands beside it.
func TestReadmeURLs(t *testing.T) {
	text, _ := readme(t)
	rows := regexp.MustCompile("(?m)^\\| (one node|sentinel|cluster)[^|]* \\| `([^`]+)` \\|$").FindAllStringSubmatch(text, -1)
	if len(rows) != 4 {
		t.Fatalf("the README shows %d URLs", len(rows))
	}
	for _, row := range rows {
		if options, err := parseRedisURL(row[2]); err != nil || kind(options) != row[1] || options.Username != "user" || options.Password != "password" {
			t.Errorf("%s is %+v, error %v", row[2], options, err)
		}
	}
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
		t.Errorf("it exits with %d and prints\n%s\nand the README shows\n%s\n%s", code, got, want, stderr)
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

func TestReadmeSettings(t *testing.T) {
	text, _ := readme(t)
	const begin, end = "<!-- settings: written by make docs -->\n", "<!-- /settings -->"
	before, rest, ok := strings.Cut(text, begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md lacks the markers of the table of settings")
	}
	if *writeReadme {
		if err := os.WriteFile(readmePath, []byte(before+begin+config.Table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if table != config.Table() {
		t.Error("the table of settings in README.md is not that of config.Table(): run make docs")
	}
}

func TestReadmeNamesTargetsThatExist(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := readme(t)
	named := regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)").FindAllStringSubmatch(text, -1)
	if len(named) < 6 {
		t.Fatalf("the README names %d targets", len(named))
	}
	for _, target := range named {
		if !strings.Contains(string(makefile), "\n"+target[1]+":") {
			t.Errorf("the README names make %s, and there is no such target", target[1])
		}
	}
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"make lint", "make test", "make check-deployments"} {
		if !strings.Contains(string(ci), "\n"+command+"\n") {
			t.Errorf(".ci/run does not run %s", command)
		}
	}
}

// The README's table of keys is what Redis holds where there is something of everything: a call in line, and the figures of
// many services, too.
func TestReadmeKeys(t *testing.T) {
	store, _, _ := storetest.Private(t)
	p := startProgram(t, store.Settings()...)
	p.must(t, 201, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`)
	offer := p.must(t, 201, "POST", "/v1/services/django/offers", `{"name":"web-01"}`)
	secret := volatile[0].pattern.FindString(offer)
	p.must(t, 204, "POST", "/v1/services/django/offers/"+secret+"/reject", `{"reason":"in_use"}`)
	p.must(t, 201, "POST", "/v1/services/django/ports", `{"name":"web-01","lease":60}`)
	p.must(t, 201, "POST", "/v1/services/django/offers", `{"name":"web-02"}`)
	for _, method := range []string{"PUT", "DELETE"} { // the figures stay for a while
		for i := range 300 {
			p.call(t.Context(), method, fmt.Sprint("/v1/pools/many/services/s", i), fmt.Sprintf(`{"start":%d,"end":%d}`, 5000+i, 5000+i))
		}
		if method == "PUT" {
			p.must(t, 200, "GET", "/metrics", "")
		}
	}
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		p.call(t.Context(), "POST", "/v1/services/django/ports?wait=30", `{"name":"farm","count":9}`)
	}()
	defer func() {
		p.must(t, 200, "PUT", "/v1/services/django", `{"start":5000,"end":5020}`)
		<-waited
	}()
	line := func() bool { return store.Admin.Exists(t.Context(), "portmaster:{default}:line:django").Val() == 1 }
	eventually(t, "a call waits in line", line)

	held := map[string]string{}
	for _, key := range store.Admin.Keys(t.Context(), "*").Val() {
		name := volatile[0].pattern.ReplaceAllLiteralString(key, "SECRET")
		held[name] = strings.ToUpper(store.Admin.Type(t.Context(), key).Val())
	}
	text, _ := readme(t)
	shown := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(portmaster:[^`]+)` \\| (\\w+)").FindAllStringSubmatch(text, -1) {
		shown[row[1]] = row[2]
	}
	for key, kind := range held {
		if kind == "ZSET" || kind == "HASH" || kind == "SET" || kind == "STRING" {
			if shown[key] != kind {
				t.Errorf("Redis holds %s, a %s, and the README shows %q", key, kind, shown[key])
			}
		}
		delete(shown, key)
	}
	for key := range shown {
		t.Errorf("the README shows %s, and Redis does not hold it", key)
	}
}
