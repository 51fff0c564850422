//go:build faults

package systemtest

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDiskFull fills the disk that a Redis writes its append-only file to. From then on changes are refused and servers are
// not ready, and say why; when there is room again, all goes on by itself.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("a disk of the test's own needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	// With appendfsync always Redis ends itself when it cannot write.
	s := &scenario{t: t, service: service{"default", "django"}, node: startRedis(t, redisOptions{fsync: "everysec", args: []string{"--dir", disk}})}
	s.startReplicas(s.node.addr)
	s.startLoad(urls(s.replicas), 16, 5*time.Millisecond)

	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	for _, r := range s.replicas {
		eventually(t, r.command.name+" says that the file could not be written", func() bool {
			response, err := visitor().Get(r.url + "/readyz")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			return response.StatusCode == 503 && strings.Contains(string(body), "append-only file")
		})
	}
	before := s.ledger.figures()
	time.Sleep(time.Second)
	during := s.ledger.figures()
	if during.acknowledged > before.acknowledged || during.unavailable == before.unavailable {
		t.Errorf("with no room, %d allocations were acknowledged, and %d calls refused",
			during.acknowledged-before.acknowledged, during.unavailable-before.unavailable)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.replicas {
		r.awaitReady()
	}
	s.ledger.awaitWrites(t, 200)
	if figures := s.end(rules{}); figures.unknown > 0 {
		t.Errorf("%d calls have an unknown outcome, and Redis answered all the time", figures.unknown)
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{1 << 20, 1 << 12} {
		for block := make([]byte, size); err == nil; {
			_, err = file.Write(block)
		}
		if !strings.Contains(err.Error(), "no space left") {
			t.Fatal(err)
		}
		err = nil
	}
}
