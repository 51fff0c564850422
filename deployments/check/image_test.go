package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
)

// TestDockerfile runs all rules of docker build --check, and plans the build as BuildKit does.
func TestDockerfile(t *testing.T) {
	holds(t, lintDockerfile,
		mutant{"Dockerfile", "USER 65532", "USR 65532", "unknown instruction"},
		mutant{"Dockerfile", "WORKDIR /src", "WORKDIR $SRC", "UndefinedVar"},
		mutant{"Dockerfile", "AS build", "AS scratch", "ReservedStageName"},
		mutant{"Dockerfile", "FROM --platform=$BUILDPLATFORM golang:1.26 AS", "FROM --platform=$BUILDPLATFORM golang:1.26 as", "FromAsCasing"},
		mutant{"Dockerfile", `ENTRYPOINT ["/portmaster"]`, "ENTRYPOINT /portmaster", "JSONArgsRecommended"},
	)
}

func lintDockerfile(t *testing.T, dir string) error {
	var faults []error
	_, err := dockerfile2llb.Dockerfile2LLB(t.Context(), []byte(read(t, filepath.Join(dir, "Dockerfile"))), dockerfile2llb.ConvertOpt{
		AllStages:    true,
		MetaResolver: noRegistry{},
		Warn: func(rule, _, _, detail string, _ []parser.Range) {
			faults = append(faults, fmt.Errorf("%s: %s", rule, detail))
		},
	})
	return errors.Join(append(faults, err)...)
}

// noRegistry stands for the registry that base images come from: it knows every image, and nothing about it.
type noRegistry struct{}

func (noRegistry) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config, err := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "config": map[string]any{}})
	return ref, digest.FromBytes(config), config, err
}

// The last stage is the image: nothing but what is copied into it, run by a user who owns nothing.
func TestImage(t *testing.T) {
	holds(t, checkImage,
		mutant{"Dockerfile", "FROM scratch", "FROM alpine", "alpine"},
		mutant{"Dockerfile", "USER 65532:65532\n", "", "USER"},
		mutant{"Dockerfile", `["/portmaster", "healthcheck"]`, `["/portmaster", "--version"]`, "HEALTHCHECK"},
		mutant{"Dockerfile", `CMD ["serve"]`, `CMD ["run"]`, "CMD"},
		mutant{"Dockerfile", "COPY --from=build /portmaster", "COPY --from=biuld /portmaster", "biuld"},
	)
}

func checkImage(t *testing.T, dir string) error {
	stages, err := dockerfileStages(t, dir)
	if err != nil {
		return err
	}
	image := stages[len(stages)-1]
	var faults []error
	said := map[string]string{"FROM": image.BaseName}
	for _, command := range image.Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			said["USER"] = c.User
		case *instructions.EntrypointCommand:
			said["ENTRYPOINT"] = strings.Join(c.CmdLine, " ")
		case *instructions.CmdCommand:
			said["CMD"] = strings.Join(c.CmdLine, " ")
		case *instructions.CopyCommand:
			if c.From != stages[0].Name { // then it is taken for an image
				faults = append(faults, fmt.Errorf("COPY --from=%s is no stage", c.From))
			}
		case *instructions.HealthCheckCommand:
			said["HEALTHCHECK"] = strings.Join(c.Health.Test, " ")
		}
	}
	for instruction, want := range map[string]string{
		"FROM": "scratch", "USER": "65532:65532", "ENTRYPOINT": "/portmaster", "CMD": "serve", "HEALTHCHECK": "CMD /portmaster healthcheck",
	} {
		if said[instruction] != want {
			faults = append(faults, fmt.Errorf("%s is %q, want %q", instruction, said[instruction], want))
		}
	}
	return errors.Join(faults...)
}

func dockerfileStages(t *testing.T, dir string) ([]instructions.Stage, error) {
	parsed, err := parser.Parse(strings.NewReader(read(t, filepath.Join(dir, "Dockerfile"))))
	if err != nil {
		return nil, err
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	return stages, err
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
	start(t, alone("serve"))
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
		read, err := ignorefile.ReadAll(strings.NewReader(read(t, filepath.Join(repository, file))))
		if err != nil || len(read) == 0 {
			t.Fatalf("%s: %v, %v", file, read, err)
		}
		return strings.Join(read, " ")
	}
	if docker, git := patterns(".dockerignore"), patterns(".gitignore"); docker != git {
		t.Errorf("Docker leaves out %s, and git %s", docker, git)
	}
}
