package handlers

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"portmaster/allocator"
)

var (
	ownerPortsDesc = prometheus.NewDesc("portmaster_owner_ports",
		"Ports that an owner with a quota holds in a pool, open offers included: of owners that asked this server for ports within the last hour, 100 at most.",
		[]string{"owner", "pool"}, nil)
	ownerQuotaDesc = prometheus.NewDesc("portmaster_owner_quota",
		"How many ports that owner may hold in a pool.", []string{"owner", "pool"}, nil)
)

const (
	maxQuotas  = 100
	quotasLast = time.Hour
)

// quotas remembers the owners with a quota that asked for ports, in the pools in which they did: the last ones.
type quotas struct {
	mu   sync.Mutex
	seen map[allocator.OwnerKey]quota
}

type quota struct {
	most int
	at   time.Time // when the owner asked last
}

// note remembers the caller of a call for ports in a pool that there is: it was served, or refused for its quota.
func (q *quotas) note(c *fiber.Ctx, err error) {
	by := principalOf(c)
	if by.Owner != "" && by.Held > 0 && (err == nil || errors.Is(err, allocator.ErrQuotaExceeded)) {
		q.add(allocator.OwnerKey{Pool: pool(c), Owner: by.Owner}, by.Held)
	}
}

// add remembers an owner in place of the one that has not asked for the longest time.
func (q *quotas) add(of allocator.OwnerKey, most int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, known := q.seen[of]; !known && len(q.seen) >= maxQuotas {
		delete(q.seen, slices.MinFunc(slices.Collect(maps.Keys(q.seen)), func(a, b allocator.OwnerKey) int {
			return q.seen[a].at.Compare(q.seen[b].at)
		}))
	}
	if q.seen == nil {
		q.seen = map[allocator.OwnerKey]quota{}
	}
	q.seen[of] = quota{most, time.Now()}
}

// recent returns those of the last hour, and forgets the others.
func (q *quotas) recent() map[allocator.OwnerKey]quota {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.seen, func(_ allocator.OwnerKey, last quota) bool { return time.Since(last.at) > quotasLast })
	return maps.Clone(q.seen)
}

// collect sends the figures of the owners.
func (q *quotas) collect(ctx context.Context, a *allocator.Allocator, ch chan<- prometheus.Metric) {
	recent := q.recent()
	owners := slices.Collect(maps.Keys(recent))
	for i, held := range a.CountHeld(ctx, owners) {
		labels := []*dto.LabelPair{label("owner", owners[i].Owner), label("pool", owners[i].Pool)}
		ch <- &gauge{ownerQuotaDesc, labels, float64(recent[owners[i]].most)}
		if held >= 0 {
			ch <- &gauge{ownerPortsDesc, labels, float64(held)}
		}
	}
}
