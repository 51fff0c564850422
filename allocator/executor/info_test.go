package executor

import "testing"

// Redis counts neither what its replicas nor what its append-only file have still to get.
func TestMemoryIsCountedAsRedisDoes(t *testing.T) {
	for name, test := range map[string]struct {
		used, uncounted, most string
		memory, limit         int64
	}{
		"no limit":             {"1000000", "0", "0", 1000000, 0},
		"no figures":           {"", "", "", 0, 0},
		"full":                 {"1000", "0", "1000", 1000, 1000},
		"low but for a buffer": {"1200", "300", "1000", 900, 1000},
		"full with its buffer": {"1300", "300", "1000", 1000, 1000},
	} {
		found := parseInfo(map[string]string{"used_memory": test.used, "mem_not_counted_for_evict": test.uncounted, "maxmemory": test.most})
		if found.Memory != test.memory || found.MaxMemory != test.limit {
			t.Errorf("%s: %d of %d bytes, want %d of %d", name, found.Memory, found.MaxMemory, test.memory, test.limit)
		}
	}
}
