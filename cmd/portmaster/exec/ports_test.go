package exec

import (
	"fmt"
	"strings"
	"testing"

	"portmaster/client"
	"portmaster/cmd/portmaster/cli"
)

func TestArgumentsAreRead(t *testing.T) {
	for line, want := range map[string]string{
		"ci -- make test":           "ci:CI | make test",
		"ci make test":              "ci:CI | make test",
		"ci sh -c exit":             "ci:CI | sh -c exit",
		"ci=WEB make":               "ci:WEB | make",
		"web-1.a db -- run -- this": "web-1.a:WEB_1_A db:DB | run -- this",
		"dev=WEB dev=db_2 -- run":   "dev:WEB dev:db_2 | run",
		"ci -- make a=b":            "ci:CI | make a=b",
	} {
		ports, command, err := readArgs(strings.Fields(line))
		var got string
		for _, p := range ports {
			got += p.service + ":" + p.alias + " "
		}
		if got += "| " + strings.Join(command, " "); err != nil || got != want {
			t.Errorf("%q is read as %q, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "ci", "ci --", "-- make", "=A -- make", "ci= -- make", "ci=A-B -- make", "ci=A=B -- make", "a b=A -- make", "ü -- make",
	} {
		if ports, command, err := readArgs(strings.Fields(line)); err == nil {
			t.Errorf("%q is read as %v %v", line, ports, command)
		}
	}
}

// The examples of the help are read as they are meant: as one of make, npm or docker.
func TestExamplesAreRead(t *testing.T) {
	for line := range strings.Lines(example) {
		line, found := strings.CutPrefix(strings.TrimSpace(line), "portmaster exec ")
		_, command, err := readArgs(strings.Fields(strings.TrimPrefix(line, "--prefer auto ")))
		if !found || err != nil || !strings.Contains("make npm docker", command[0]) {
			t.Errorf("%q is read as %q, %v", line, command, err)
		}
	}
}

func TestCommandLearnsItsPorts(t *testing.T) {
	ports := []port{
		{"web", "WEB", client.Allocation{Name: "n", Port: 5000, Fence: 17}},
		{"db", "X", client.Allocation{Name: "n", Port: 6000, Fence: 18}},
	}
	const want = "[PORT=5000 PORTMASTER_NAME=n PORTMASTER_FENCE=17 PORT_WEB=5000 PORT_X=6000]"
	if got := fmt.Sprint(environment(ports)); got != want {
		t.Errorf("the environment is %s", got)
	}
	command := []string{"{PORT}", "a{PORT}b{PORT_X}", "{PORT_WEB}{PORT_Y}{}", "$PORT"}
	if got, want := fmt.Sprint(fillIn(command, ports)), "[{PORT} a5000b6000 5000{PORT_Y}{} $PORT]"; got != want {
		t.Errorf("the command is %s", got)
	}
	if command[1] != "a{PORT}b{PORT_X}" {
		t.Error("the command line itself is changed")
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for _, line := range []string{
		"--prefer 0", "--prefer x", "--prefer 65536", "--prefer auto --count 2", "--prefer 5000 --count 2", "--count 0",
		"--count 101", "--lease 999ms", "--lease 31d", "--wait -1s", "--grace -1s", "--check icmp", "--on-lost ignore", "--nothing", "--lease",
		"--server localhost", "--pool /",
	} {
		cmd := Command()
		cmd.SetArgs(append(strings.Fields(line), "ci", "true"))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if exit, ok := cmd.Execute().(*cli.Exit); !ok || exit.Code != codeFailed || exit.Err == nil {
			t.Errorf("%s: the error is %v", line, exit)
		}
	}
	o := options{lease: 1e9, count: 1}
	if err := o.read([]string{"a", "b", "--", "c"}, "5000", "none", "stop"); err == nil {
		t.Error("two services prefer one port")
	}
	o.prefer = 0
	if err := o.read([]string{"a", "b", "--", "c"}, "auto", "none", "warn"); err != nil || !o.auto || !o.warn {
		t.Errorf("it reads %+v, %v", o, err)
	}
}
