package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
	"portmaster/handlers/identity"
)

// The figures have what owners with a quota hold, in the pools that there are, and no other owner.
func TestQuotasInMetrics(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		limited, first := newToken(t, "limited", identity.Client, "*/*", "held=3")
		free, second := newToken(t, "free", identity.Client, "*/*", "-")
		boss, third := newToken(t, "boss", identity.Operator, "*/*", "-")
		a, _ := newGuardedAPI(t, store, first, second, third)
		a.as(boss)("PUT", "/v1/pools/host/services/django", `{"start":5000,"end":5009}`).want(201)
		const ports = "/v1/pools/host/services/django/ports"
		a.as(limited)("POST", ports, `{"name":"a","count":2}`).want(201)
		a.as(limited)("POST", "/v1/pools/host/services/django/offers", `{"name":"b"}`).want(201)
		a.as(limited)("POST", ports, `{"name":"c"}`).problem(403, "QUOTA_EXCEEDED")
		a.as(limited)("POST", "/v1/pools/nowhere/services/django/ports", `{"name":"c"}`).want(404)
		a.as(free)("POST", ports, `{"name":"d"}`).want(201)
		body := a.as(boss)("GET", "/metrics", "").want(200).body
		contains(t, body, `portmaster_owner_ports{owner="limited",pool="host"} 3`+"\n", `portmaster_owner_quota{owner="limited",pool="host"} 3`+"\n")
		if strings.Contains(body, "nowhere") || strings.Contains(body, `owner="free"`) {
			t.Error(body)
		}
		a.as(limited)("DELETE", ports+"/a", "").want(204)
		contains(t, a.as(boss)("GET", "/metrics", "").want(200).body, `portmaster_owner_ports{owner="limited",pool="host"} 1`+"\n")
	})
}

// Of many owners the last ones are remembered, for an hour.
func TestQuotasAreBounded(t *testing.T) {
	q := &quotas{}
	key := func(i int) allocator.OwnerKey { return allocator.OwnerKey{Pool: "p", Owner: fmt.Sprint(i)} }
	for i := range maxQuotas + 5 {
		q.add(key(i), 1)
		q.add(key(0), 2) // it asks again and again
	}
	recent := q.recent()
	equal(t, "owners", len(recent), maxQuotas)
	equal(t, "quota", recent[key(0)].most, 2)
	if _, known := recent[key(1)]; known {
		t.Error("the one that has not asked for the longest time is remembered")
	}
	q.seen[key(0)] = quota{2, time.Now().Add(-quotasLast)}
	if _, known := q.recent()[key(0)]; known {
		t.Error("one that has not asked for an hour is remembered")
	}
}
