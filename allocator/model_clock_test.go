package allocator

import (
	"time"

	"pgregory.net/rapid"
)

// The clocks of the model's test: of miniredis it is set, of a real Redis it is read, and what ends by itself is waited for.

// now returns the store's time.
func (r *run) now(t *rapid.T) ms {
	if r.store.Mini != nil {
		if r.model == nil {
			return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
		}
		return r.model.now
	}
	now, err := r.store.Admin.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now.UnixMilli()
}

// settle returns the store's time, after it let pass what would end during the next call.
func (r *run) settle(t *rapid.T) ms {
	now := r.now(t)
	if r.store.Mini != nil {
		r.store.Mini.SetTime(time.UnixMilli(now))
		return now
	}
	const window = 12 // ms: longer than a call and its comparison, mostly
	for {
		r.advance(now)
		ends := r.model.deadlines()
		if len(ends) == 0 || ends[0] > now+window {
			return now
		}
		time.Sleep(time.Duration(ends[0]-now) * time.Millisecond)
		now = r.now(t)
	}
}

// advance moves the model's time, where the store has a time of its own.
func (r *run) advance(now ms) {
	if r.store.Mini == nil {
		r.model.now, r.model.swept = now, now
	}
}

// stamp returns the store's time at a call: what the call wrote as such, if anything, and then within the bounds that we
// know; else any time will do, since nothing ended meanwhile.
func (r *run) stamp(t *rapid.T, c request, got answer, state *state, from ms) ms {
	if got.Code != "" || r.store.Mini != nil {
		return from
	}
	wrote := r.wrote(c, got, state)
	if wrote == 0 {
		return from
	}
	if wrote < from || wrote > state.now {
		r.differ(t, "%v -> %v wrote the time %d, which is not within %d-%d", c, got, wrote, from, state.now)
	}
	return wrote
}

// wrote is the time that a call wrote as that at which it was made; 0 where it wrote none.
func (r *run) wrote(c request, got answer, state *state) (wrote ms) {
	p := r.model.pool(c.pool)
	s := p.services[c.service]
	switch c.act {
	case "create", "put":
		if got.Created {
			return got.Service.Created.UnixMilli()
		}
	case "offer", "claim", "accept":
		if at := s.inLine(c.ticket); got.Waits && (at < 0 || !r.model.isKept(p, s.line[at])) {
			return state.beats[c.pool+"/"+serverOf(c.ticket)] - beatFor
		} else if got.Waits {
			return 0
		}
		for _, offer := range got.Offers {
			wrote = max(wrote, offer.Created.UnixMilli())
		}
		for _, allocation := range got.Allocations {
			wrote = max(wrote, allocation.Created.UnixMilli())
		}
		if got.Created {
			return wrote
		}
	case "reject":
		if k := p.secrets[c.secret]; got.Created && k != nil {
			if at := portKey(c.pool, c.service, k.port); c.inUse {
				return state.rests[at] - quarantine.Milliseconds()
			} else {
				return state.free[at] + s.cooldown
			}
		}
	case "renew":
		lease := c.lease.Milliseconds()
		if s != nil && lease == 0 {
			if h := r.model.find(s, c.holder); h != nil {
				lease = h.lease
			}
		}
		return got.Allocations[0].Expires.UnixMilli() - lease
	case "release":
		if s == nil || r.model.released(p, c) {
			return 0
		}
		if h := r.model.find(s, c.holder); h != nil {
			return state.free[portKey(c.pool, c.service, h.port)]
		}
	case "beat":
		return state.beats[c.pool+"/"+c.server] - beatFor
	}
	return 0
}

// keepFence lets the fence of a pool whose last service was removed last as long as it does on Redis: where keys are deleted late, the
// time since the last deletion counts for its TTL, too.
func (r *run) keepFence(c request) {
	if c.act != "remove" || r.store.Mini == nil {
		return
	}
	fence := r.allocators[long].keys.Pool(c.pool).Fence()
	if left := r.store.Mini.TTL(fence); left == 2*time.Hour { // it was set just now
		r.store.Mini.SetTTL(fence, left+time.Duration(r.model.now-r.model.swept)*time.Millisecond)
	}
}
