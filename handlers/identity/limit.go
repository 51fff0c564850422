package identity

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// generations is a map that holds what was used last: at least limit entries, and at most twice as many. Callers lock.
type generations[K comparable, V any] struct {
	limit      int
	young, old map[K]V
}

func (g *generations[K, V]) get(key K) (V, bool) {
	value, found := g.young[key]
	if !found {
		if value, found = g.old[key]; found {
			g.put(key, value)
		}
	}
	return value, found
}

func (g *generations[K, V]) put(key K, value V) {
	if g.young == nil || len(g.young) >= g.limit {
		g.young, g.old = map[K]V{}, g.young
	}
	g.young[key] = value
}

// limiters holds a token bucket for each principal that calls: for a second's calls, at the principal's rate. One that is
// forgotten and comes back finds a full bucket, as it does after a second without calls.
type limiters struct {
	mu      sync.Mutex
	buckets generations[bucketKey, *rate.Limiter]
}

// A bucketKey has the rate in it, so that a new one takes effect at once.
type bucketKey struct {
	name string
	rate int
}

const maxBuckets = 10_000

// Admit counts a call of p, and returns 0 if its rate allows the call now; otherwise how long to wait before the next attempt.
func (a *Authenticator) Admit(p Principal) (wait time.Duration) {
	if p.Rate == 0 {
		return 0
	}
	bucket, now := a.limiters.bucket(bucketKey{p.Name, p.Rate}), time.Now()
	if bucket.AllowN(now, 1) {
		return 0
	}
	missing := 1 - bucket.TokensAt(now)
	return max(time.Duration(missing/float64(p.Rate)*float64(time.Second)), time.Microsecond)
}

func (l *limiters) bucket(key bucketKey) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket, found := l.buckets.get(key)
	if !found {
		bucket = rate.NewLimiter(rate.Limit(key.rate), key.rate)
		l.buckets.put(key, bucket)
	}
	return bucket
}
