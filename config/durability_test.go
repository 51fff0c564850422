package config

import (
	"strings"
	"testing"
)

func TestDurability(t *testing.T) {
	t.Setenv("PORTMASTER_REDIS_URL", "redis://127.0.0.1:6379")
	for text, want := range map[string]Durability{"local": 0, "replicated:1": 1, "replicated:16": 16} {
		t.Setenv("PORTMASTER_DURABILITY", text)
		if c, err := Load(); err != nil || c.Durability != want {
			t.Errorf("%s: %d, %v", text, c.Durability, err)
		}
	}
	for _, text := range []string{"replicated", "replicated:0", "replicated:17", "replicated:-1", "replicated:two", "LOCAL", "1"} {
		t.Setenv("PORTMASTER_DURABILITY", text)
		if _, err := Load(); err == nil || !strings.Contains(err.Error(), "PORTMASTER_DURABILITY") {
			t.Errorf("%s: %v", text, err)
		}
	}
	t.Setenv("PORTMASTER_REDIS_URL", "")
	t.Setenv("PORTMASTER_DURABILITY", "replicated:1")
	if _, err := Load(); err == nil || !strings.Contains(err.Error(), "PORTMASTER_DURABILITY") {
		t.Errorf("without a Redis: %v", err)
	}
}
