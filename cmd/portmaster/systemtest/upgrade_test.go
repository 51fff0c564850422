//go:build faults

package systemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// predecessor is a commit of servers whose state this one converts.
type predecessor struct {
	commit string
	back   bool // it can work on the state again; older ones cannot write the fences of today
}

var predecessors = map[string]predecessor{
	"schema 0":                              {"59c9e8d585241d3e4ca71bde5a359ae492e218e4", false},
	"the form of schema 1 without a number": {"0167514336e7529e1adf1cc676d857443032b616", true},
}

// buildPredecessor builds the program of a commit of this repository's history.
func buildPredecessor(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	archive := exec.Command("git", "archive", commit)
	archive.Dir = "../../.."
	var files, says bytes.Buffer
	archive.Stdout, archive.Stderr = &files, &says
	if err := archive.Run(); err != nil {
		t.Skipf("NOT TESTED: the history of this checkout lacks %s, so no predecessor can be built (git fetch --unshallow): %v %s", commit, err, says.String())
	}
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = &files
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := filepath.Join(dir, "portmaster")
	build := exec.Command("go", "build", "-o", program, "./cmd/portmaster")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestUpgrade starts a server beside those of a predecessor, under load. The predecessors hand out nothing from the moment on at
// which their state is converted; nothing that they acknowledged is lost; and they work again on it when it is rolled back.
func TestUpgrade(t *testing.T) {
	for name, p := range predecessors {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upgrade(t, buildPredecessor(t, p.commit), p.back)
		})
	}
}

func upgrade(t *testing.T, program string, back bool) {
	node := startRedis(t, redisOptions{fsync: "no", args: []string{"--slowlog-log-slower-than", "2000"}})
	ofOld := func(name string) *replica {
		addr := freeAddr(t)
		return &replica{url: "http://" + addr, process: startProcess(t, command{
			name: name, args: []string{program, "serve"},
			env: append(withoutSettings(os.Environ()), "PORTMASTER_REDIS_URL=redis://"+node.addr, "PORTMASTER_HTTP_ADDR="+addr, "PORTMASTER_QUARANTINE=1h"),
		})}
	}
	old := []*replica{ofOld("old-1"), ofOld("old-2")}
	for _, r := range old {
		r.awaitReady()
	}
	wide, full := service{"default", "wide"}, service{"crowded", "full"}
	define(t, old[0].url, wide, 1100, 47_100)
	define(t, old[0].url, full, 5000, 5000)
	const inUse = 300
	for i := range inUse { // each is kept out for an hour
		rejectInUse(t, old[i%2].url, wide, fmt.Sprint("in-use-", i))
	}
	holder := newClaimers(full)
	if _, ok := holder.claim(visitor(), old[0]); !ok {
		t.Fatal("the only port is not handed out")
	}
	waited := make(chan int, 1)
	go func() { waited <- waitFor(old[1].url, full) }()
	c := newClaimers(wide)
	c.start(4, old)
	time.Sleep(time.Second)
	c.stop()

	began := time.Now()
	newer := startPortmaster(t, "newer", "PORTMASTER_REDIS_URL=redis://"+node.addr)
	all := append([]*replica{newer}, old...)
	c.start(6, all)
	newer.awaitReady()
	converted := time.Now()
	for _, r := range old {
		eventually(t, "the predecessor is not ready", func() bool { return !r.ready() })
		if _, ok := c.claim(visitor(), r); ok {
			t.Error("a predecessor hands out ports of a converted state")
		}
	}
	if status := <-waited; status == http.StatusCreated {
		t.Errorf("the call that waits on a predecessor is answered %d", status)
	}
	time.Sleep(500 * time.Millisecond)
	c.stop()
	if _, gone := c.check(t, newer); gone > 0 {
		t.Errorf("%d of %d allocations are lost", gone, len(c.all))
	}
	checkRecords(t, node, wide, 1100+inUse, 47_100).requireNone(t)
	var counted struct {
		Ports struct{ Allocated, Offered, Cooling int }
	}
	if _, ok := get(newer.url+wide.path(), &counted); !ok || counted.Ports.Cooling != inUse || counted.Ports.Offered != 0 {
		t.Errorf("it counts %+v, want %d that are kept out", counted.Ports, inUse)
	}
	t.Logf("converted within %s, of which the predecessors have 2.5 s to notice; %d claims acknowledged, answers %v",
		converted.Sub(began).Round(time.Millisecond), len(c.all), c.answers)
	for _, slow := range node.client.SlowLogGet(t.Context(), 10).Val() {
		t.Logf("slow: %s %v", slow.Duration, slow.Args)
	}

	if !back {
		return
	}
	// Back: the servers end, the two keys are deleted, and the predecessor works again.
	newer.terminate()
	for _, r := range old {
		r.terminate()
	}
	pageCommands(t, "Upgrade and roll back")[0].run(t, node, node.dir)
	old[0].restart()
	if _, gone := c.check(t, old[0]); gone > 0 {
		t.Errorf("rolled back, %d allocations are lost", gone)
	}
	if _, ok := c.claim(visitor(), old[0]); !ok {
		t.Error("rolled back, no port is handed out")
	}
	// And forth again, with the predecessor left running.
	newer.restart()
	eventually(t, "the predecessor is not ready", func() bool { return !old[0].ready() })
	if _, gone := c.check(t, newer); gone > 0 {
		t.Errorf("upgraded again, %d allocations are lost", gone)
	}
}

func rejectInUse(t *testing.T, server string, of service, name string) {
	t.Helper()
	var offered struct{ Secret string }
	if status := post(t, server+of.path()+"/offers", fmt.Sprintf(`{"name":%q}`, name), &offered); status != http.StatusCreated {
		t.Fatalf("an offer is answered %d", status)
	}
	if status := post(t, server+of.path()+"/offers/"+offered.Secret+"/reject", `{"reason":"in_use"}`, nil); status != http.StatusNoContent {
		t.Fatalf("a rejection is answered %d", status)
	}
}

// waitFor waits in line for a port, and returns how it was answered.
func waitFor(server string, of service) int {
	response, err := (&http.Client{Timeout: patience}).Post(server+of.path()+"/ports?wait=5", "application/json", strings.NewReader(`{"name":"waits"}`))
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// post sends a body and reads the answer into target, unless that is nil.
func post(t *testing.T, address, body string, target any) (status int) {
	t.Helper()
	response, err := visitor().Post(address, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if target != nil {
		if err := json.NewDecoder(response.Body).Decode(target); err != nil {
			t.Fatal(err)
		}
	}
	return response.StatusCode
}
