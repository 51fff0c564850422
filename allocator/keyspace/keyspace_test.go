package keyspace

import (
	"maps"
	"testing"
)

// Servers of other versions, operators and users.acl know the keys by these names.
func TestKeysKeepTheirNames(t *testing.T) {
	want := map[string]string{
		"service": "service:web", "free": "free:web", "fresh": "fresh:web", "run_lengths": "room:web", "names": "names:web",
		"offers": "offers:web", "ports": "ports:web", "leases": "leases:web", "resting": "resting:web", "waitlist": "line:web",
		"services": "services", "ends": "ends", "ranges": "ranges", "rest": "rest", "heartbeats": "beats", "waitlists": "lines", "fence": "fence", "removed": "removed",
		"offer": "offer:secret", "owned": "owner:secret", "old_quarantine": "quarantine:web", "old_beats": "beats:web",
		"events": "events:web", "labels": "labels:web", "last": "last:web",
	}
	for name := range want {
		want[name] = "portmaster:{blue}:" + want[name]
	}
	maps.Copy(want, map[string]string{"epoch": "portmaster:epoch", "pools": "portmaster:pools"})
	prefix, got := Prefix("portmaster"), map[string]string{}
	for name, key := range ofAPool {
		got[name] = key(prefix.Pool("blue"), "web", "secret")
	}
	for name, key := range ofNoPool {
		got[name] = key(prefix)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the keys are %v, want %v", got, want)
	}
	others := []string{prefix.Figures(), prefix.Deployment(), prefix.Turns(), prefix.Pool("blue").Copied("id")}
	for i, want := range []string{"portmaster:figures", "portmaster:deployment", "portmaster:turns", "portmaster:{blue}:copied:id"} {
		if others[i] != want {
			t.Errorf("%s, want %s", others[i], want)
		}
	}
}
