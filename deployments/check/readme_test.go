package check

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme holds the page for operators to the files: it names all of them and all alerts, and its links and paths lead somewhere.
func TestReadme(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		page := read(t, filepath.Join(dir, "README.md"))
		return errors.Join(namesFiles(t, dir, page), namesAlerts(t, dir, page), leadsSomewhere(dir, page))
	},
		mutant{"README.md", "| `haproxy.cfg` |", "| `haproxy` |", "it has no row for haproxy.cfg"},
	)
}

// namesFiles returns a fault for each file or chart without a row of its own.
func namesFiles(t *testing.T, dir, page string) error {
	t.Helper()
	names := []string{"helm/portmaster", "redis/redis.conf", "redis/users.acl"}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !entry.IsDir() && entry.Name() != "README.md" && entry.Name() != "redis-password" {
			names = append(names, entry.Name())
		}
	}
	var faults []error
	for _, name := range names {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			faults = append(faults, fmt.Errorf("it has no row for %s", name))
		}
	}
	return errors.Join(faults...)
}

func namesAlerts(t *testing.T, dir, page string) error {
	t.Helper()
	severities := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(Portmaster\\w+)` \\| (\\w+) \\| .+ \\|$").FindAllStringSubmatch(page, -1) {
		severities[row[1]] = row[2]
	}
	var faults []error
	for _, rule := range alertRules(t, dir) {
		switch severity := severities[rule.Alert]; severity {
		case "":
			faults = append(faults, fmt.Errorf("it has no row for %s", rule.Alert))
		case rule.Labels["severity"]:
		default:
			faults = append(faults, fmt.Errorf("%s is a %s", rule.Alert, rule.Labels["severity"]))
		}
		delete(severities, rule.Alert)
	}
	for alert := range severities {
		faults = append(faults, fmt.Errorf("there is no %s", alert))
	}
	return errors.Join(faults...)
}

// leadsSomewhere returns a fault for each link to a heading, and each path, that is not there.
func leadsSomewhere(dir, page string) error {
	var faults []error
	for _, link := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(page, -1) {
		if heading := strings.ReplaceAll(link[1], "-", " "); !strings.Contains(strings.ToLower(page), "\n## "+heading+"\n") {
			faults = append(faults, fmt.Errorf("there is no heading for #%s", link[1]))
		}
	}
	for _, path := range regexp.MustCompile(`\bdeployments/([\w./-]*\w)`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join(dir, path[1])); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", path[0], err))
		}
	}
	return errors.Join(faults...)
}

// TestReadmeCommands runs the commands that the page shows in blocks, in the root of the repository. Those for an upgrade and a
// backup are run by the fault suite, which has servers under load.
func TestReadmeCommands(t *testing.T) {
	page, _, _ := strings.Cut(read(t, filepath.Join(deployments, "README.md")), "\n## Upgrade and roll back\n")
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)```\n").FindAllStringSubmatch(page, -1)
	if len(blocks) == 0 {
		t.Fatal("the page has no commands")
	}
	for _, tool := range []tool{haproxy, promtool, systemdAnalyze} {
		tool.path(t)
	}
	for _, block := range blocks {
		cmd := exec.Command("bash", "-ec", block[1])
		cmd.Dir, cmd.Env = repository, append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin")
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, output)
		}
	}
}
