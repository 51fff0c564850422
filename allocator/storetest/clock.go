package storetest

import (
	_ "embed"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

//go:embed testdata/clock.c
var clockSource []byte

// Clock is the wall clock of a Redis, which a test can set.
type Clock struct {
	t    testing.TB
	file *os.File
	Env  []string // of the redis-server
}

// NewClock makes a clock that is right. It skips the test, and says so, where there is no gcc; with RequireRedis set that is
// an error.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	dir := t.TempDir()
	source, library, file := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so"), filepath.Join(dir, "clock")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source)
	if out, err := build.CombinedOutput(); err != nil || runtime.GOOS != "linux" {
		missing := t.Skipf
		if os.Getenv(RequireRedis) != "" {
			missing = t.Fatalf
		}
		missing("the clock of a test needs Linux, gcc and the headers of libc: %v\n%s", err, out)
	}
	if err := os.WriteFile(file, make([]byte, 16), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Clock{t: t, Env: append(os.Environ(), "LD_PRELOAD="+library, "CLOCK="+file)}
	var err error
	if c.file, err = os.OpenFile(file, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.file.Close() })
	return c
}

// Shift lets the clock differ by so much from the machine's.
func (c *Clock) Shift(by time.Duration) {
	c.t.Helper()
	c.write(by.Microseconds(), 0)
}

// Stop lets the clock stand still at a time, until it is set again.
func (c *Clock) Stop(at time.Time) {
	c.t.Helper()
	c.write(at.UnixMicro(), 8)
}

func (c *Clock) write(number int64, at int64) {
	c.t.Helper()
	if _, err := c.file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(number)), at); err != nil {
		c.t.Fatal(err)
	}
}
