package systemtest

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"portmaster/allocator/storetest"
)

var program = flag.String("program", "", "the portmaster to test; empty: it is built first")

// buildDir is where the program is built.
var buildDir string

func TestMain(m *testing.M) {
	if what := os.Getenv(asChild); what != "" {
		runChild(what)
		return
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "portmaster-systemtest-"); err != nil {
		log.Fatal(err)
	}
	code := storetest.Run(m)
	os.RemoveAll(buildDir)
	os.Exit(code)
}

// build builds the program, with the race detector where the tests have it.
var build = sync.OnceValues(func() (program string, err error) {
	program = filepath.Join(buildDir, "portmaster")
	args := []string{"build", "-o", program}
	if storetest.Race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "..")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

// portmaster returns the program to test.
func portmaster(t testing.TB) string {
	t.Helper()
	if *program == "" {
		built, err := build()
		if err != nil {
			t.Fatal(err)
		}
		return built
	}
	return *program
}

// replica is a portmaster serve.
type replica struct {
	*process
	url string // http://host:port
}

// startPortmaster starts a server with the given settings (NAME=value) and no others. Where they do not say where to
// listen, it is on a free port of loopback. It does not wait for it to be ready.
func startPortmaster(t testing.TB, name string, settings ...string) *replica {
	t.Helper()
	return startPortmasterIn(t, "", name, settings...)
}

// startPortmasterIn starts a server in a network namespace.
func startPortmasterIn(t testing.TB, namespace, name string, settings ...string) *replica {
	t.Helper()
	const where = "PORTMASTER_HTTP_ADDR="
	given := slices.IndexFunc(settings, func(s string) bool { return strings.HasPrefix(s, where) })
	if given < 0 {
		given, settings = len(settings), append(slices.Clone(settings), where+freeAddr(t))
	}
	c := command{
		name:      name,
		namespace: namespace,
		args:      []string{portmaster(t), "serve"},
		env:       append(withoutSettings(os.Environ()), settings...),
	}
	return &replica{process: startProcess(t, c), url: "http://" + strings.TrimPrefix(settings[given], where)}
}

// awaitReady waits until /readyz says that the server has its Redis.
func (r *replica) awaitReady() {
	r.t.Helper()
	r.await("/readyz is 200", r.ready)
}

func (r *replica) ready() bool { return ready(r.url) }

// ready reports whether /readyz is 200.
func ready(server string) bool {
	response, err := visitor().Get(server + "/readyz")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool { return strings.HasPrefix(entry, "PORTMASTER_") })
}
