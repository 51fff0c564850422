package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// sectionsExec are run one after the other, by TestReadmeExec.
var sectionsExec = []section{
	{commandsPage, "Run a command with a port"}, {commandsPage, "Several ports"}, {commandsPage, "The same port each time"},
}

// sectionsCommands are run one after the other, by TestReadmeCommands.
var sectionsCommands = []section{
	{commandsPage, "All commands"}, {commandsPage, "Define and change services"},
	{commandsPage, "Find and release what belongs together"}, {commandsPage, "What happened"}, {commandsPage, "Move services and allocations"},
}

// sectionCompose is run by TestReadmeExecElsewhere.
var sectionCompose = section{commandsPage, "Docker Compose"}

// beforeExec is what a shell is told, so that the commands of the page run the program of this test, against the server p.
func beforeExec(t *testing.T, p *program) string {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asProgram, os.Args[0])
	if err := os.WriteFile(filepath.Join(dir, "portmaster"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("export PORTMASTER_SERVER=http://%s PATH='%s':\"$PATH\"\n", p.addr, dir)
}

func TestReadmeExec(t *testing.T) {
	needs(t, "bash")
	p := startProgram(t)
	follow(t, exec.CommandContext(t.Context(), "bash"), beforeExec(t, p), steps(t, sectionsExec...))
}

// The lines for CI, make and Docker Compose run as they stand, with a Makefile and a docker that say which port they got.
func TestReadmeExecElsewhere(t *testing.T) {
	needs(t, "bash", "make")
	p := startProgram(t)
	p.must(t, 201, "POST", "/v1/services", `{"name":"ci","start":7120,"end":7129}`)
	p.must(t, 201, "POST", "/v1/services", `{"name":"dev","start":7130,"end":7130}`)
	p.must(t, 201, "PUT", "/v1/pools/laptop/services/dev", `{"start":7140,"end":7140}`)
	text := readPage(t, commandsPage)
	blocks := map[string]string{}
	for _, b := range text.blocks {
		blocks[b.lang] = b.text
	}
	const makefile = "test:\n\t@echo make test has the port $$PORT\n"
	for _, c := range []struct{ lang, pattern, before, says string }{
		{"yaml github", `(?m)run: (.*)$`, "", `^make test has the port 71\d\d\n$`},
		{"yaml gitlab", `(?m)^    - (.*)$`, "", `^make test has the port 71\d\d\n$`},
		{"groovy", `(?m)sh '(.*)'`, "", `^make test has the port 71\d\d\n$`},
		{"make", `()`, "make -s serve", `^server --port=7130\n$`},
		{"bash", `(?s)(.*)`, "", `^$`},
	} {
		line := regexp.MustCompile(c.pattern).FindStringSubmatch(blocks[c.lang])
		if line == nil {
			t.Errorf("%s: no command in the block %s", commandsPage, c.lang)
			continue
		}
		commands := c.before + line[1]
		if c.lang == "bash" { // what direnv exports, but the address
			commands = strings.Replace(commands, "export PORTMASTER_SERVER=", "# ", 1) + "portmaster exec dev -- true"
		}
		shell := exec.CommandContext(t.Context(), "bash", "-c", beforeExec(t, p)+commands)
		shell.Dir = t.TempDir()
		shell.Env = withoutMake(withoutSettings(os.Environ()))
		rules := makefile
		if c.lang == "make" {
			rules = blocks["make"]
		}
		for name, text := range map[string]string{"Makefile": rules, "server": "#!/bin/sh\necho server \"$@\"\n"} {
			if err := os.WriteFile(filepath.Join(shell.Dir, name), []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		out, err := shell.CombinedOutput()
		if err != nil || !regexp.MustCompile(c.says).Match(out) {
			t.Errorf("%s: %s: %v: %s", c.lang, commands, err, out)
		}
	}
	compose := steps(t, sectionCompose)
	compose[0].output.text = "docker compose up with 7130\n"
	follow(t, exec.CommandContext(t.Context(), "bash"), beforeExec(t, p)+`
		printf '#!/bin/sh\necho docker "$@" with $PORT_WEB\n' > docker
		chmod +x docker
		PATH="$PWD:$PATH"
		`, compose)
}

// The table of flags is that of the program.
func TestReadmeExecFlags(t *testing.T) {
	t.Setenv("PORTMASTER_SERVER", "")
	t.Setenv("PORTMASTER_POOL", "")
	cmd, _, err := command().Find([]string{"exec"})
	if err != nil {
		t.Fatal(err)
	}
	table := "| flag | default | what it does |\n|---|---|---|\n"
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		value := "`" + f.DefValue + "`"
		if f.DefValue == "" {
			value = ""
		}
		table += fmt.Sprintf("| `--%s` | %s | %s |\n", f.Name, value, usage)
	})
	if !strings.Contains(readPage(t, commandsPage).text, table) {
		t.Errorf("%s does not have this table of flags:\n%s", commandsPage, table)
	}
}

func TestReadmeCommands(t *testing.T) {
	needs(t, "bash", "jq")
	p := startProgram(t)
	follow(t, exec.CommandContext(t.Context(), "bash"), beforeExec(t, p), steps(t, sectionsCommands...))
}

// The page lists every command, and no other; the agent's file is JSON that names one.
func TestReadmeListsTheCommands(t *testing.T) {
	page := readPage(t, commandsPage)
	var listed, have []string
	for _, row := range regexp.MustCompile("(?m)^\\| `portmaster (\\w+)` \\|").FindAllStringSubmatch(page.text, -1) {
		listed = append(listed, row[1])
	}
	for _, cmd := range command().Commands() {
		if cmd.Name() != "help" {
			have = append(have, cmd.Name())
		}
	}
	slices.Sort(listed)
	slices.Sort(have)
	if !slices.Equal(listed, have) {
		t.Errorf("%s lists %v, and there are %v", commandsPage, listed, have)
	}
	for _, b := range page.blocks {
		if b.lang != "json mcp" {
			continue
		}
		var file struct {
			Servers map[string]struct {
				Command string
				Args    []string
			} `json:"mcpServers"`
		}
		if err := json.Unmarshal([]byte(b.text), &file); err != nil || file.Servers["portmaster"].Command != "portmaster" {
			t.Fatalf("%s: %v", b, err)
		}
		args := file.Servers["portmaster"].Args
		if cmd, _, err := command().Find(args); err != nil || cmd.ParseFlags(args[1:]) != nil {
			t.Errorf("%s: %v is no command: %v", b, args, err)
		}
		return
	}
	t.Errorf("%s has no file for an agent", commandsPage)
}
