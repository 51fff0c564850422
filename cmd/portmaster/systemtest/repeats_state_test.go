//go:build !faults

package systemtest

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"
)

// record is an offer or an allocation as Redis has it.
type record struct {
	Name, Secret   string
	Port, Count    int
	Fence          int64
	Created        int64
	Lease, Expires int64
}

// checkState compares what Redis has with what the clients think.
func (r *replicas) checkState(has belongings) {
	r.t.Helper()
	names, offers, ports := map[string]string{}, map[string]string{}, map[string]string{}
	until := map[string]int64{} // when the hold of a port ends; 0 is never
	for _, b := range has.kept {
		first := strconv.Itoa(b.Port)
		names[b.Name] = first
		record := r.readRecord(b)
		for i := range b.size() {
			port := strconv.Itoa(b.Port + i)
			until[port] = record.Expires
			switch {
			case b.Fence == 0 && i > 0: // an offer stands at its first port
			case b.Fence == 0:
				offers[port] = b.Secret
			case i == 0:
				ports[port] = b.Secret
			default:
				ports[port] = first
			}
			if b.Fence != 0 && record.Expires != 0 {
				offers[port] = "leased"
			}
		}
	}
	r.same("names", names, r.hash("names"))
	r.same("offers", offers, secretsOf(r.hash("offers")))
	r.same("ports", ports, secretsOf(r.hash("ports")))
	r.checkFree(until, has)
	if got := r.allocated(); got != has.fences {
		r.t.Errorf("%d allocations were made, not %d", got, has.fences)
	}
}

// readRecord reads what Redis has of a belonging, and finds where it is not what the client was told.
func (r *replicas) readRecord(b *belonging) (is record) {
	r.t.Helper()
	hash := "ports"
	if b.Fence == 0 {
		hash = "offers"
	}
	text := r.store.Admin.HGet(context.Background(), r.key(hash), strconv.Itoa(b.Port)).Val()
	if err := json.Unmarshal([]byte(text), &is); err != nil {
		r.t.Errorf("%v is in Redis as %q", b, text)
		return is
	}
	expires := int64(0)
	if !b.Expires.IsZero() {
		expires = b.Expires.UnixMilli()
	}
	later := b.late && is.Expires >= expires && is.Expires < expires+patience.Milliseconds()
	if is.Name != b.Name || is.Secret != b.Secret || is.Port != b.Port || max(is.Count, 1) != b.size() || is.Fence != b.Fence ||
		is.Created != b.Created.UnixMilli() || is.Expires != expires && !later {
		r.t.Errorf("%v is in Redis as %+v", b, is)
	}
	return is
}

// checkFree finds ports that are not free, or free, as they should be: each of the range has its hold, or was given back,
// or was never handed out.
func (r *replicas) checkFree(until map[string]int64, has belongings) {
	r.t.Helper()
	ctx := context.Background()
	free, leases := r.scores("free"), r.scores("leases")
	fresh, resting := map[string]bool{}, r.scores("resting")
	for last, first := range r.scores("fresh") {
		end, _ := strconv.Atoi(last)
		for port := int(first); port <= end; port++ {
			fresh[strconv.Itoa(port)] = true
		}
	}
	now, err := r.store.Admin.Time(ctx).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	for n := r.first; n < r.first+r.ports; n++ {
		port := strconv.Itoa(n)
		score, scored := free[port]
		expires, isHeld := until[port]
		_, leased := leases[port]
		right := !isHeld && !leased
		switch {
		case isHeld && expires == 0:
			right = !scored && !fresh[port] && !leased
		case isHeld:
			right = scored && int64(score) == expires && !fresh[port]
		case has.keptOut[n]:
			right = right && !scored && !fresh[port] && int64(resting[port]) > now.UnixMilli()
		case scored:
			right = right && !fresh[port] && int64(score) <= now.UnixMilli()
		default:
			right = right && fresh[port]
		}
		if !right {
			r.t.Errorf("port %d is held %t until %d, free from %.0f (%t), fresh %t, leased %t", n, isHeld, expires, score, scored, fresh[port], leased)
		}
	}
	r.t.Logf("%d ports are held, %d kept out, %d were given back, %d never handed out", len(until), len(has.keptOut), len(free), len(fresh))
}

// same compares two hashes.
func (r *replicas) same(hash string, want, got map[string]string) {
	r.t.Helper()
	if maps.Equal(want, got) {
		return
	}
	for field, value := range want {
		if got[field] != value {
			r.t.Errorf("%s has %s at %s, want %s", hash, got[field], field, value)
		}
	}
	for field, value := range got {
		if _, wanted := want[field]; !wanted {
			r.t.Errorf("%s has %s at %s, which nobody has", hash, value, field)
		}
	}
}

// secretsOf has the secret in place of each record.
func secretsOf(hash map[string]string) map[string]string {
	for field, text := range hash {
		var is record
		if json.Unmarshal([]byte(text), &is) == nil {
			hash[field] = is.Secret
		}
	}
	return hash
}

func (r *replicas) hash(of string) map[string]string {
	return r.store.Admin.HGetAll(context.Background(), r.key(of)).Val()
}

func (r *replicas) scores(of string) map[string]float64 {
	scores := map[string]float64{}
	for _, z := range r.store.Admin.ZRangeWithScores(context.Background(), r.key(of), 0, -1).Val() {
		scores[z.Member.(string)] = z.Score
	}
	return scores
}
