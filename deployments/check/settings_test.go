package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// TestSettingsExist looks up every setting that the files name in what portmaster serve --help lists.
func TestSettingsExist(t *testing.T) {
	help, err := exec.Command(program(t), "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, found := range regexp.MustCompile(`(?m)^PORTMASTER_[A-Z_]+`).FindAll(help, -1) {
		listed = append(listed, string(found))
	}
	holds(t, func(t *testing.T, dir string) error {
		var faults []error
		for name, file := range namedSettings(t, dir) {
			if !slices.Contains(listed, name) {
				faults = append(faults, fmt.Errorf("%s: there is no setting %s", file, name))
			}
		}
		return errors.Join(faults...)
	},
		mutant{"compose.yaml", "PORTMASTER_REDIS_URL:", "PORTMASTER_REDIS_ADDRESS:", "PORTMASTER_REDIS_ADDRESS"},
	)
}

// namedSettings returns the settings that the files name, in comments too, and the rendered chart, each with where it was found.
func namedSettings(t *testing.T, dir string) map[string]string {
	t.Helper()
	named := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if entry.Name() == "check" {
				return fs.SkipDir
			}
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range regexp.MustCompile(`\bPORTMASTER_[A-Z_]*[A-Z]\b`).FindAll(text, -1) {
			named[string(found)] = entry.Name()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, values := range valueSets {
		objects, err := render(t, dir, values)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range objects {
			if deployment, ok := object.(*appsv1.Deployment); ok {
				for _, e := range deployment.Spec.Template.Spec.Containers[0].Env {
					if e.Name != "POD_IP" { // only for the value of another
						named[e.Name] = "helm/portmaster"
					}
				}
			}
		}
	}
	return named
}
