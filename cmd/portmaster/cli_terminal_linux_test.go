package main

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal returns a new terminal, and what is at the other end of it.
func terminal(t *testing.T) (terminal, other *os.File) {
	t.Helper()
	other, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here:", err)
	}
	t.Cleanup(func() { other.Close() })
	n, err := unix.IoctlGetInt(int(other.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(other.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return terminal, other
}

// A person at a terminal sees what a command waits for, without colours, and the line is cleared at the end. With -q there is none.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	p.must(t, 201, "PUT", "/v1/services/ci", `{"start":20000,"end":20000}`)
	p.must(t, 201, "POST", "/v1/services/ci/ports", `{"name":"first"}`)
	claim := func(args ...string) string {
		t.Helper()
		stderr, other := terminal(t)
		cmd := programCommand(append([]string{"claim", "ci", "second", "--wait", "3s"}, args...), "PORTMASTER_SERVER=http://"+p.addr)
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stderr.Close()
		seen, _ := io.ReadAll(other) // it ends with an error when nobody has the terminal
		_ = cmd.Wait()
		return string(seen)
	}
	seen := claim()
	if !regexp.MustCompile(`^(\rwaiting for a port of ci for \ds; [01] in line *)+\r {40,}\rportmaster: EXHAUSTED: [^\x1b\r\n]*\r\n$`).MatchString(seen) {
		t.Errorf("%q", seen)
	}
	if seen := claim("-q"); !strings.HasPrefix(seen, "portmaster: EXHAUSTED: ") {
		t.Errorf("-q: %q", seen)
	}
}
