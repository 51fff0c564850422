package storetest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestVersions(t *testing.T) {
	for says, want := range map[string]struct {
		version string
		old     bool
	}{
		"Redis server v=6.2.16 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64 build=6f1a":   {"redis 6.2.16", true},
		"Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=a3fd":   {"redis 6.0.16", true},
		"Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=5dda\n": {"redis 7.0.15", false},
		"Redis server v=8.2.1 sha=00000000:1 malloc=jemalloc-5.3.0 bits=64 build=1":       {"redis 8.2.1", false},
		"Redis server v=60.1.0 sha=0": {"redis 60.1.0", false},
		"Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=67cf": {"valkey 8.0.1", false},
		"": {" of unknown version", false},
	} {
		s := redisServer{version: parseVersion(says)}
		if s.version != want.version || s.old() != want.old {
			t.Errorf("%q is %q, old: %v", says, s.version, s.old())
		}
	}
}

// A server that stands on the PATH under the name, says that it is of the version, and takes no option that this one lacks.
func TestOtherServers(t *testing.T) {
	needsRedis(t)
	for _, test := range []struct{ name, says, lacks, version, user string }{
		{"redis-server", "Redis server v=6.2.16 sha=0", "--aclfile|--enable-debug-command", "redis 6.2.16", ""},
		{"valkey-server", "Valkey server v=8.0.1 sha=0", "--no-such-option", "valkey 8.0.1", User},
	} {
		t.Run(test.version, func(t *testing.T) {
			dir := t.TempDir()
			script := "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '" + test.says + "'; exit; fi\n" +
				"for arg; do case $arg in " + test.lacks + ") echo 'Bad directive'; exit 1;; esac; done\n" +
				"exec " + server.program + " \"$@\"\n"
			if err := os.WriteFile(filepath.Join(dir, test.name), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir)
			s, err := startRedis(usual(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.remove()
			store := s.store(t)
			if s.version != test.version || store.Client.Options().Username != test.user {
				t.Errorf("it is %s, and lets %q in", s.version, store.Client.Options().Username)
			}
			if err := store.Client.Set(t.Context(), "portmaster:test", 1, 0).Err(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, err := startRedis(usual(), nil); !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("the error is %v", err)
		}
	})
}
