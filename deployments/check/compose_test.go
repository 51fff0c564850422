package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func TestCompose(t *testing.T) {
	for _, files := range [][]string{{"compose.yaml"}, {"compose.yaml", "compose.acl.yaml"}, {"compose.yaml", "compose.tokens.yaml"}} {
		t.Run(files[len(files)-1], func(t *testing.T) {
			holds(t, func(t *testing.T, dir string) error { return checkCompose(t, dir, files) },
				mutant{"compose.yaml", "stop_grace_period: 15s", "stop_grace: 15s", "stop_grace"},
				mutant{"compose.yaml", "./haproxy.cfg:", "./haproxy.conf:", "haproxy.conf"},
			)
		})
	}
}

// checkCompose loads the project as docker compose does, and looks at what it refers to.
func checkCompose(t *testing.T, dir string, files []string) error {
	var paths []string
	for _, file := range files {
		paths = append(paths, filepath.Join(dir, file))
	}
	options, err := cli.NewProjectOptions(paths, cli.WithResolvedPaths(true))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		return err
	}
	var faults []error
	var replicas []string
	for name, service := range project.Services {
		if service.Build != nil {
			replicas = append(replicas, name)
			// In a copy the context is not the repository: only the name of the file counts.
			if service.Build.Dockerfile != "deployments/Dockerfile" {
				faults = append(faults, fmt.Errorf("%s is built from %s", name, service.Build.Dockerfile))
			}
		}
		faults = append(faults, checkMounts(service)...)
		if auth := service.Environment["PORTMASTER_AUTH"]; service.Build != nil {
			if withTokens := slices.Contains(files, "compose.tokens.yaml"); auth == nil || (*auth == "none") == withTokens {
				faults = append(faults, fmt.Errorf("%s has PORTMASTER_AUTH %v", name, auth))
			}
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				faults = append(faults, fmt.Errorf("%s is open to everybody", name))
			}
		}
		if _, ok := service.Networks["store"]; ok != (name == "redis" || service.Build != nil) {
			faults = append(faults, fmt.Errorf("%s is in the network of Redis: %v", name, ok))
		}
	}
	slices.Sort(replicas)
	if balanced := balancedReplicas(t, dir); !slices.Equal(replicas, balanced) {
		faults = append(faults, fmt.Errorf("the replicas are %q, and HAProxy knows %q", replicas, balanced))
	}
	if !project.Networks["store"].Internal {
		faults = append(faults, errors.New("the network of Redis is not internal"))
	}
	return errors.Join(faults...)
}

// checkMounts returns a fault for each file or folder that is not there.
func checkMounts(service types.ServiceConfig) (faults []error) {
	for _, volume := range service.Volumes {
		if volume.Type == types.VolumeTypeBind {
			if _, err := os.Stat(volume.Source); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", service.Name, err))
			}
		}
	}
	return faults
}

// balancedReplicas returns the names by which haproxy.cfg knows the replicas where no variable says otherwise.
func balancedReplicas(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, found := range regexp.MustCompile(`\$\{REPLICA_\d-([^:}]+):8080\}`).FindAllStringSubmatch(read(t, filepath.Join(dir, "haproxy.cfg")), -1) {
		names = append(names, found[1])
	}
	slices.Sort(names)
	return slices.Compact(names) // each backend names them
}
