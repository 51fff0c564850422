//go:build faults

package systemtest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

var copies = flag.Int("copies", 10, "how often TestRestoredUnderLoad restores a copy")

// manyPorts is the last port of services whose holders keep theirs.
const manyPorts = 40_000

// claimed is an allocation that a claim was answered with.
type claimed struct {
	Name, Secret string
	Port         int
	Fence        int64
	asked, told  time.Time
}

// claimers are clients that claim ports, and release some of them.
type claimers struct {
	path string

	mu       sync.Mutex
	all      []claimed
	released map[int64]bool    // by fence
	fences   map[int64]claimed // of all that were ever claimed
	total    int
	answers  map[string]int
	over     chan struct{}
	running  sync.WaitGroup
}

// start lets n clients claim from servers until stop.
func (c *claimers) start(n int, servers []*replica) {
	c.over = make(chan struct{})
	for i := range n {
		c.running.Go(func() {
			web := &http.Client{Timeout: 3 * time.Second}
			defer web.CloseIdleConnections()
			for n := i; ; n++ {
				select {
				case <-c.over:
					return
				case <-time.After(2 * time.Millisecond):
				}
				got, ok := c.claim(web, servers[n%len(servers)])
				if ok && n%3 == 0 {
					c.release(web, servers[(n+1)%len(servers)], got)
				}
			}
		})
	}
}

func (c *claimers) stop() {
	close(c.over)
	c.running.Wait()
}

func (c *claimers) claim(web *http.Client, server *replica) (claimed, bool) {
	got := claimed{Name: "n" + uuid.NewString(), Secret: uuid.NewString(), asked: time.Now()}
	body := fmt.Sprintf(`{"name":%q,"secret":%q}`, got.Name, got.Secret)
	response, err := web.Post(server.url+c.path+"/ports", "application/json", strings.NewReader(body))
	if err != nil {
		return got, false
	}
	defer response.Body.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[response.Status]++
	if response.StatusCode != http.StatusCreated || json.NewDecoder(response.Body).Decode(&got) != nil {
		return got, false
	}
	got.told = time.Now()
	c.all = append(c.all, got)
	return got, true
}

func (c *claimers) release(web *http.Client, server *replica, of claimed) {
	request, err := http.NewRequest("DELETE", fmt.Sprintf("%s%s/ports/%s", server.url, c.path, of.Name), nil)
	if err != nil {
		return
	}
	request.Header.Set("If-Match", fmt.Sprintf("%q", fmt.Sprint(of.Fence)))
	response, err := web.Do(request)
	if err != nil {
		return
	}
	response.Body.Close()
	if response.StatusCode == http.StatusNoContent {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.released[of.Fence] = true
	}
}

// between returns the claims that were asked for after a time and answered before another.
func (c *claimers) between(from, to time.Time) (some []claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.all {
		if one.asked.After(from) && one.told.Before(to) {
			some = append(some, one)
		}
	}
	return some
}

// check finds two holders of one port with the same fence, and two that are told that a port is theirs.
func (c *claimers) check(t *testing.T, server *replica) (held, unknown int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	holders := map[int]claimed{}
	for _, one := range c.all {
		if other, given := c.fences[one.Fence]; given && other.Name != one.Name {
			t.Errorf("%+v and %+v have the same fence", one, other)
		}
		c.fences[one.Fence] = one
		if c.released[one.Fence] {
			continue
		}
		var now claimed
		if _, found := get(fmt.Sprintf("%s%s/ports/%s", server.url, c.path, one.Name), &now); !found || now.Fence != one.Fence {
			unknown++
			continue
		}
		held++
		if other, taken := holders[one.Port]; taken {
			t.Errorf("%+v and %+v are both told that %d is theirs", one, other, one.Port)
		}
		holders[one.Port] = one
	}
	return held, unknown
}

// giveBack releases all that is held.
func (c *claimers) giveBack(server *replica) {
	c.mu.Lock()
	all := c.all
	c.all, c.total = nil, c.total+len(c.all)
	c.mu.Unlock()
	web := &http.Client{Timeout: 3 * time.Second}
	defer web.CloseIdleConnections()
	for _, one := range all {
		c.release(web, server, one)
	}
}

func newClaimers(of service) *claimers {
	return &claimers{path: of.path(), released: map[int64]bool{}, fences: map[int64]claimed{}, answers: map[string]int{}}
}

// recovers runs portmaster recover, and returns what it prints.
func recovers(t *testing.T, addr string) string {
	t.Helper()
	cmd := exec.Command(portmaster(t), "recover")
	cmd.Env = append(withoutSettings(os.Environ()), "PORTMASTER_REDIS_URL=redis://"+addr)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("portmaster recover: %v\n%s", err, out.String())
	}
	return out.String()
}

// awaitLost waits until no server hands out ports, and says when.
func awaitLost(t *testing.T, replicas []*replica) {
	t.Helper()
	for _, r := range replicas {
		eventually(t, "/readyz says that the state is lost", func() bool {
			response, err := visitor().Get(r.url + "/readyz")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			var problem struct{ Detail string }
			return json.NewDecoder(response.Body).Decode(&problem) == nil && strings.Contains(problem.Detail, "portmaster recover")
		})
	}
}

// TestRestoredUnderLoad copies Redis under load and restores the copy, again and again. The servers keep running. No port is handed
// out from the older state before it is recovered, no two holders ever have the same fence, and no two are told that a port is
// theirs.
func TestRestoredUnderLoad(t *testing.T) {
	t.Parallel()
	node := startRedis(t, redisOptions{fsync: "no"})
	var replicas []*replica
	for i := range 3 {
		replicas = append(replicas, startPortmaster(t, fmt.Sprintf("portmaster-%d", i+1), "PORTMASTER_REDIS_URL=redis://"+node.addr, "PORTMASTER_MAX_ROLLBACK=0s"))
	}
	for _, r := range replicas {
		r.awaitReady()
	}
	of := service{"default", "restored"}
	define(t, replicas[0].url, of, firstPort, manyPorts)
	c := newClaimers(of)
	given, held, unknown := 0, 0, 0
	for range *copies {
		c.start(6, replicas)
		time.Sleep(150 * time.Millisecond)
		snapshot := node.backup()
		copied := time.Now()
		time.Sleep(250 * time.Millisecond)
		node.restore(snapshot)
		restored := time.Now()
		given += len(c.between(copied, restored))
		awaitLost(t, replicas)
		if early := c.between(restored, time.Now()); len(early) > 0 {
			t.Errorf("%d ports were handed out from the older state: %+v", len(early), early)
		}
		said := recovers(t, node.addr)
		if !strings.Contains(said, "recovered") || !strings.Contains(said, "that they acknowledged since are not in it") {
			t.Errorf("recover says %q", said)
		}
		for _, r := range replicas {
			r.awaitReady()
		}
		after := len(c.between(restored, time.Now()))
		eventually(t, "ports are handed out again", func() bool { return len(c.between(restored, time.Now())) > after+20 })
		c.stop()
		theirs, gone := c.check(t, replicas[0])
		held, unknown = held+theirs, unknown+gone
		checkRecords(t, node, of, firstPort, manyPorts).requireNone(t)
		if t.Failed() {
			t.Fatalf("recover said %q", said)
		}
		c.giveBack(replicas[1])
	}
	t.Logf("%d copies restored under load: %d claims acknowledged, %d of them between the copy and its restoration, %d held after it, %d not known any more; answers %v",
		*copies, c.total, given, held, unknown, c.answers)
	if given < 20**copies || unknown == 0 {
		t.Error("too little was acknowledged between copies and restorations: nothing is shown")
	}
}

// TestStatesSwapped lets two Redis swap their data: each deployment notices that the state is another's, and accepts it once an
// operator says so. When they swap back that is another state again.
func TestStatesSwapped(t *testing.T) {
	t.Parallel()
	type deployment struct {
		node     *redisNode
		replicas []*replica
	}
	var both [2]deployment
	for i := range both {
		node := startRedis(t, redisOptions{fsync: "no"})
		both[i] = deployment{node, startServers(t, 2, node.addr)}
		define(t, both[i].replicas[0].url, service{"default", fmt.Sprintf("of-%d", i)}, 5000, 5099)
	}
	for range 2 {
		snapshots := [2][]byte{both[0].node.backup(), both[1].node.backup()}
		for i, d := range both {
			d.node.restore(snapshots[1-i])
			awaitLost(t, d.replicas)
		}
		for _, d := range both {
			if said := recovers(t, d.node.addr); !strings.Contains(said, "not the state") {
				t.Errorf("recover says %q", said)
			}
			for _, r := range d.replicas {
				r.awaitReady()
			}
		}
	}
}

// TestOlderStateIsBuiltUpon restores a copy of some seconds ago, which is within PORTMASTER_MAX_ROLLBACK: the servers raise the fences
// and go on, and say by how much it was older.
func TestOlderStateIsBuiltUpon(t *testing.T) {
	t.Parallel()
	node := startRedis(t, redisOptions{fsync: "no"})
	replicas := startServers(t, 3, node.addr)
	of := service{"default", "older"}
	define(t, replicas[0].url, of, firstPort, manyPorts)
	c := newClaimers(of)
	c.start(6, replicas)
	time.Sleep(2500 * time.Millisecond)
	snapshot := node.backup()
	time.Sleep(2500 * time.Millisecond) // so that each server has seen a pulse that is not in the copy
	node.restore(snapshot)
	restored := time.Now()
	eventually(t, "ports are handed out", func() bool { return len(c.between(restored, time.Now())) > 100 })
	c.stop()
	held, unknown := c.check(t, replicas[0])
	if unknown == 0 {
		t.Error("nothing was lost: this shows nothing")
	}
	checkRecords(t, node, of, firstPort, manyPorts).requireNone(t)
	noticed := 0
	for _, r := range replicas {
		eventually(t, "the metrics tell", func() bool { return strings.Contains(metricsOf(t, r), "portmaster_state_rollbacks_total 1\n") })
		if strings.Contains(r.tail(), "the state in Redis is older than what was acknowledged") {
			noticed++
		}
	}
	if noticed != len(replicas) {
		t.Errorf("the logs of %d servers tell", noticed)
	}
	t.Logf("%d claims, %d held, %d not known any more", len(c.all), held, unknown)
}

func metricsOf(t *testing.T, r *replica) string {
	t.Helper()
	response, err := visitor().Get(r.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return text.String()
}
