package check

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portmaster/allocator/storetest/processes"
)

// The last stage is the image: nothing but what is copied into it, run by a user who owns nothing.
func TestImage(t *testing.T) {
	holds(t, checkImage,
		mutant{"Dockerfile", "FROM scratch", "FROM alpine", "alpine"},
	)
}

func checkImage(t *testing.T, dir string) error {
	said := instructions(t, dir)
	var faults []error
	for instruction, want := range map[string]string{
		"FROM": "scratch", "USER": "65532:65532", "ENTRYPOINT": `["/portmaster"]`, "CMD": `["serve"]`,
		"COPY": "--from=build /portmaster /portmaster", "HEALTHCHECK": `--interval=5s --timeout=3s --start-period=5s CMD ["/portmaster", "healthcheck"]`,
	} {
		if said[instruction] != want {
			faults = append(faults, fmt.Errorf("%s is %q, want %q", instruction, said[instruction], want))
		}
	}
	return errors.Join(faults...)
}

// instructions are those of the Dockerfile, the last of each kind. Its last stage has no RUN.
func instructions(t *testing.T, dir string) map[string]string {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(read(t, filepath.Join(dir, "Dockerfile"))) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		said[instruction] = rest
	}
	return said
}

// TestProgramRunsAlone does what the image does: the program that its last RUN builds runs as user 65532 in a folder that
// holds nothing else, and finds itself healthy.
func TestProgramRunsAlone(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv(requireRedis) != "" {
			t.Fatal("only root may change the root folder")
		}
		t.Skip("only root may change the root folder: not run alone")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(program(t)))); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	alone := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "/portmaster", args...)
		cmd.Dir = "/"
		cmd.Env = []string{"PORTMASTER_HTTP_ADDR=" + addr}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		return cmd
	}
	if out, err := alone("healthcheck").CombinedOutput(); err == nil {
		t.Errorf("before it runs it is healthy: %s", out)
	}
	processes.Run(t, alone("serve"))
	eventually(t, "the healthcheck succeeds", func() bool { return alone("healthcheck").Run() == nil })
}

func TestProgramKnowsItsVersion(t *testing.T) {
	out, err := exec.Command(program(t), "--version").CombinedOutput()
	if err != nil || string(out) != "portmaster version "+version+"\n" {
		t.Errorf("it says %q, %v", out, err)
	}
}

// What .dockerignore leaves out of the build is what git leaves out, so that the program can name its commit.
func TestDockerignore(t *testing.T) {
	patterns := func(file string) string {
		var lines []string
		for line := range strings.Lines(read(t, filepath.Join(repository, file))) {
			if !strings.HasPrefix(line, "#") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		return strings.Join(lines, " ")
	}
	if docker, git := patterns(".dockerignore"), patterns(".gitignore"); docker != git {
		t.Errorf("Docker leaves out %s, and git %s", docker, git)
	}
}
