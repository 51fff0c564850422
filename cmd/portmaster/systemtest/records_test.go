//go:build faults

package systemtest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
)

// torn is a fault: the keys of a service contradict each other, as a script leaves them that fails half-way.
const torn fault = "half-written"

// records is what Redis holds of a service. See lua/README.md for what each key is.
type records struct {
	fresh  map[string]bool    // ports never handed out
	free   map[string]float64 // ports, by the time from which they are free
	names  map[string]string  // the port of each name
	offers map[string]string  // by port
	ports  map[string]string  // allocations, by port
}

// checkRecords looks into the keys of a service, of ports from start to end, and finds what is half-written. No client
// may call meanwhile.
func checkRecords(t testing.TB, node *redisNode, of service, start, end int) (found findings) {
	t.Helper()
	r := readRecords(t, node, of)
	tear := func(format string, args ...any) {
		found = append(found, finding{torn, of.path() + ": " + fmt.Sprintf(format, args...)})
	}
	for port := start; port <= end; port++ {
		port := strconv.Itoa(port)
		_, free := r.free[port]
		_, held := r.ports[port]
		if r.fresh[port] == (free || held) || free && held {
			tear("port %s: fresh %v, free %v, held %v; not one of these", port, r.fresh[port], free, held)
		}
	}
	for port, allocation := range r.ports {
		if name := readHolder(t, allocation).Name; r.names[name] != port {
			tear("%s is held by %s, whose port is %q", port, name, r.names[name])
		}
	}
	for port, offer := range r.offers {
		o := readHolder(t, offer)
		if r.names[o.Name] != port || r.free[port] != float64(o.Expires) || r.ports[port] != "" {
			tear("%s is offered to %s until %d; that name's port is %q, it is free from %.0f and held as %q",
				port, o.Name, o.Expires, r.names[o.Name], r.free[port], r.ports[port])
		}
	}
	for name, port := range r.names {
		if r.offers[port] == "" && r.ports[port] == "" {
			tear("%s has port %s, which is neither offered nor held", name, port)
		}
	}
	return found
}

func readRecords(t testing.TB, node *redisNode, of service) records {
	t.Helper()
	key := func(kind string) string { return "portmaster:{" + of.pool + "}:" + kind + ":" + of.name }
	r := records{fresh: map[string]bool{}, free: map[string]float64{}}
	var runs, free *redis.ZSliceCmd
	var names, offers, ports *redis.MapStringStringCmd
	_, err := node.client.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		runs, free = p.ZRangeWithScores(t.Context(), key("fresh"), 0, -1), p.ZRangeWithScores(t.Context(), key("free"), 0, -1)
		names, offers, ports = p.HGetAll(t.Context(), key("names")), p.HGetAll(t.Context(), key("offers")), p.HGetAll(t.Context(), key("ports"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs.Val() {
		last, err := strconv.Atoi(run.Member.(string))
		if err != nil {
			t.Fatal(err)
		}
		for port := int(run.Score); port <= last; port++ {
			r.fresh[strconv.Itoa(port)] = true
		}
	}
	for _, z := range free.Val() {
		r.free[z.Member.(string)] = z.Score
	}
	r.names, r.offers, r.ports = names.Val(), offers.Val(), ports.Val()
	return r
}

// holder is what an offer and an allocation have in common in Redis.
type holder struct {
	Name    string
	Expires int64 // of an offer, Unix ms
}

func readHolder(t testing.TB, record string) (h holder) {
	t.Helper()
	if err := json.Unmarshal([]byte(record), &h); err != nil {
		t.Fatalf("%q: %v", record, err)
	}
	return h
}
