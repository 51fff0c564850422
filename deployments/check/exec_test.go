package check

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"sigs.k8s.io/yaml"
)

// commandsPage has the lines for CI and Docker Compose around portmaster exec.
const commandsPage = "../../cmd/portmaster/README.md"

// blockOf returns the fenced block of a page in a language.
func blockOf(t *testing.T, page, lang string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)\n```" + lang + "\n(.*?)```").FindSubmatch(text)
	if block == nil {
		t.Fatalf("%s has no block of %s", page, lang)
	}
	return string(block[1])
}

// Compose publishes the port that exec got.
func TestExecCompose(t *testing.T) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(file, []byte(blockOf(t, commandsPage, "yaml compose")), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{file}, cli.WithName("page"), cli.WithEnv([]string{"PORT_WEB=7130"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ports := project.Services["web"].Ports; len(ports) != 1 || ports[0].Published != "7130" || ports[0].HostIP != "127.0.0.1" {
		t.Errorf("it publishes %+v", ports)
	}
}

func TestExecGitLab(t *testing.T) {
	var file struct {
		Variables map[string]string `json:"variables"`
		Test      struct {
			Script []string `json:"script"`
		} `json:"test"`
	}
	if err := yaml.UnmarshalStrict([]byte(blockOf(t, commandsPage, "yaml gitlab")), &file); err != nil {
		t.Fatal(err)
	}
	if file.Variables["PORTMASTER_SERVER"] == "" || len(file.Test.Script) != 1 {
		t.Errorf("it is read as %+v", file)
	}
}
