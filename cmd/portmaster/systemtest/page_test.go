//go:build faults

package systemtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// commands are a block of shell commands of deployments/README.md.
type commands string

// pageCommands returns the blocks of a section.
func pageCommands(t *testing.T, section string) (blocks []commands) {
	t.Helper()
	page, err := os.ReadFile("../../../deployments/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?)```\n").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, commands(block[1]))
	}
	if len(blocks) == 0 {
		t.Fatalf("the section %q has no commands", section)
	}
	return blocks
}

// run runs commands in a folder, with a Redis as the one that redis-cli and portmaster find, and returns what they print.
func (c commands) run(t *testing.T, node *redisNode, dir string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(node.addr)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(portmaster(t), filepath.Join(bin, "portmaster")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-ec", strings.ReplaceAll(string(c), "redis-cli ", "redis-cli -p "+port+" "))
	cmd.Dir = dir
	cmd.Env = append(withoutSettings(os.Environ()), "PORTMASTER_REDIS_URL=redis://"+node.addr, "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", c, err, out)
	}
	return string(out)
}

// TestBackupPage does under load what deployments/README.md says of a backup. What the copy knows is kept, what was handed out after
// it is not known, and holders see what the page says.
func TestBackupPage(t *testing.T) {
	blocks := pageCommands(t, "Backup and restore")
	if len(blocks) != 3 {
		t.Fatalf("the page has %d blocks of commands, want those to copy, to restore and to recover", len(blocks))
	}
	node := startRedis(t, redisOptions{fsync: "no"})
	var replicas []*replica
	for _, name := range []string{"portmaster-1", "portmaster-2"} {
		r := startPortmaster(t, name, "PORTMASTER_REDIS_URL=redis://"+node.addr, "PORTMASTER_MAX_ROLLBACK=1s")
		r.awaitReady()
		replicas = append(replicas, r)
	}
	of := service{"default", "copied"}
	define(t, replicas[0].url, of, firstPort, manyPorts)
	c := newClaimers(of)
	c.start(4, replicas)
	time.Sleep(500 * time.Millisecond)
	copying := time.Now()
	blocks[0].run(t, node, node.dir)
	copied := time.Now()
	time.Sleep(3 * time.Second)
	known := c.between(time.Time{}, copying)
	node.kill()
	after := c.between(copied, time.Now())
	blocks[1].run(t, node, node.dir)
	node.restart()
	awaitLost(t, replicas)
	for _, one := range after[:10] {
		if status := statusOf(t, replicas[0].url+of.path()+"/ports/"+one.Name); status != 503 && !c.isReleased(one) {
			t.Errorf("a holder that the copy does not know is answered %d before it is recovered", status)
		}
	}
	said := blocks[2].run(t, node, node.dir)
	if !strings.Contains(said, "service copied:") || !strings.Contains(said, "recovered") {
		t.Errorf("it says %q", said)
	}
	for _, r := range replicas {
		r.awaitReady()
	}
	c.stop()
	for _, one := range known {
		if status := statusOf(t, replicas[1].url+of.path()+"/ports/"+one.Name); status != 200 && !c.isReleased(one) {
			t.Errorf("a holder that the copy knows is answered %d", status)
		}
	}
	for _, one := range after {
		if status := statusOf(t, replicas[1].url+of.path()+"/ports/"+one.Name); status != 404 {
			t.Errorf("a holder that the copy does not know is answered %d after it was recovered", status)
		}
	}
	held, gone := c.check(t, replicas[0])
	checkRecords(t, node, of, firstPort, manyPorts).requireNone(t)
	t.Logf("%d claims before the copy, %d after it; at the end %d held and %d not known; recover said:\n%s", len(known), len(after), held, gone, said)
}

func statusOf(t *testing.T, address string) int {
	t.Helper()
	status := 0
	eventually(t, address+" answers", func() bool {
		response, err := visitor().Get(address)
		if err == nil {
			response.Body.Close()
			status = response.StatusCode
		}
		return err == nil
	})
	return status
}

func (c *claimers) isReleased(one claimed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.released[one.Fence]
}
