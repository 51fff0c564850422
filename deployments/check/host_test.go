package check

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestRedisConf starts Redis by redis.conf and asks it for what matters.
func TestRedisConf(t *testing.T) {
	holds(t, checkRedis,
		mutant{"redis/redis.conf", "appendonly yes", "appendonly no", "appendonly"},
	)
	dir := copyOfDeployments(t)
	mutant{"redis/redis.conf", "maxmemory 512mb", "maxmemory much", ""}.put(t, dir)
	if _, err := redisServer.run(t, t.TempDir(), filepath.Join(dir, "redis/redis.conf"), "--port", "0"); err == nil {
		t.Error("Redis starts with a fault in redis.conf")
	}
}

func checkRedis(t *testing.T, dir string) error {
	host, port, _ := net.SplitHostPort(startRedis(t, dir))
	var faults []error
	for setting, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no", "save": "",
		"maxmemory": "536870912", "maxmemory-policy": "noeviction", "protected-mode": "yes",
	} {
		output, err := redisCLI.run(t, dir, "-h", host, "-p", port, "CONFIG", "GET", setting)
		if err != nil {
			t.Fatal(err)
		}
		if _, value, _ := strings.Cut(strings.TrimSuffix(output, "\n"), "\n"); value != want {
			faults = append(faults, fmt.Errorf("%s is %q, want %q", setting, value, want))
		}
	}
	return errors.Join(faults...)
}

// TestSystemdUnit has systemd read the unit, with the program where this test built it, and rate what it may do.
func TestSystemdUnit(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		const installed = "/usr/local/bin/portmaster"
		text := read(t, filepath.Join(dir, "portmaster.service"))
		if strings.Count(text, "ExecStart="+installed+" serve\n") != 1 {
			return errors.New("the unit does not start portmaster serve")
		}
		// A refused login ends the start. systemd reads this key in [Unit] only, and elsewhere would give up after a few.
		if section, _, _ := strings.Cut(text, "\n[Service]\n"); !strings.Contains(section, "\n[Unit]\n") || !strings.Contains(section, "\nStartLimitIntervalSec=0\n") {
			return errors.New("systemd would give up after a few starts that Redis refused")
		}
		unit := filepath.Join(t.TempDir(), "portmaster.service")
		write(t, unit, strings.Replace(text, "ExecStart="+installed, "ExecStart="+program(t), 1))
		output, err := systemdAnalyze.run(t, dir, "verify", unit)
		if err == nil && output != "" {
			err = errors.New(output) // such as a key that it ignores
		}
		if err != nil {
			return err
		}
		_, err = systemdAnalyze.run(t, dir, "security", "--offline=true", "--threshold=15", unit)
		return err
	},
		mutant{"portmaster.service", "ProtectSystem=strict", "ProtectSystems=strict", "Unknown key"},
	)
}

// TestScripts has shellcheck read the script behind make up, and that of CI.
func TestScripts(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		_, err := shellcheck.run(t, dir, "local.sh", absolute(t, filepath.Join(repository, ".ci/run")))
		return err
	},
		mutant{"local.sh", `"$STATE/redis"`, `$STATE/redis`, "SC2086"},
	)
}
