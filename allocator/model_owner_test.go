package allocator

import (
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// Whose a hold is, in the model: who may act on it, and how many ports an owner may hold.

// modelCallers are those who make calls. One owner comes with two quotas, and one of them is often less than what it holds.
var modelCallers = []Caller{
	{}, {RequestID: "r1"}, {}, {Owner: "gitlab:17/a", Held: 3}, {Owner: "gitlab:17/a", Held: 6, RequestID: "r2"}, {Owner: "bob", Held: 2}, {Owner: "bob"},
	{Owner: "ops", IsOperator: true},
}

var modelOwners = []string{"gitlab:17/a", "bob", "ops"}

func drawCaller(t *rapid.T) Caller { return rapid.SampledFrom(modelCallers).Draw(t, "caller") }

// mayNot reports whether the caller must not act on what has this owner.
func (m *model) mayNot(c Caller, owner string) bool {
	if owner != "" && owner != c.Owner {
		if c.Owner != "" && !c.IsOperator {
			return true
		}
		m.note("acts on what another owns")
	}
	return false
}

// isAnothers is mayNot for what a secret stands for.
func (m *model) isAnothers(c request, state string, k *known) bool {
	return state != "" && state != "elsewhere" && m.mayNot(c.caller, k.owner)
}

// ofAnother reports whether a secret is another owner's: only its owner repeats a call, or claims an offer.
func ofAnother(c request, state, owner string) bool {
	return owner != "" && owner != c.caller.Owner && (c.caller.Owner != "" || c.act == "claim" && state == "open")
}

// isOverQuota reports whether the caller would hold more ports than it may with so many more.
func (m *model) isOverQuota(p *modelPool, c Caller, more int) bool {
	held := more
	for _, s := range p.services {
		for _, port := range s.ports {
			if port.hold.lives(m.now) && port.hold.owner == c.Owner {
				held++
			}
		}
	}
	return c.Owner != "" && c.Held > 0 && held > c.Held
}

// describeOwners tells what each owner holds, as describeOwner does of the store.
func (m *model) describeOwners(pool string, p *modelPool) (lines []string) {
	for _, s := range p.services {
		for number, port := range s.ports {
			if h := port.hold; h.lives(m.now) && h.owner != "" {
				ends := h.expires
				if ends == 0 {
					ends = 9_007_199_254_740_991
				}
				lines = append(lines, fmt.Sprintf("%s %s owns %d until %d", pool, h.owner, number, ends))
			}
		}
	}
	return lines
}

// describeOwner tells which ports the key of an owner has whose time has not come. A key without one ends by itself.
func (s *state) describeOwner(pool, owner string, ports *redis.ZSliceCmd) {
	for port, ends := range scores(ports) {
		if ends > s.now {
			s.add("%s %s owns %s until %d", pool, owner, port, ends)
		}
	}
}

// keepOwners lets the keys of owners last as long as they do on Redis, as keepFence does that of the fence.
func (r *run) keepOwners(c request) {
	if r.store.Mini == nil || r.model.now == r.model.swept {
		return
	}
	for _, owner := range modelOwners {
		key := r.allocators[long].keys.Pool(c.pool).Owned(owner)
		ports, _ := r.store.Mini.SortedSet(key)
		last := 0.0
		for _, ends := range ports {
			last = max(last, ends)
		}
		if len(ports) > 0 && ms(last) > r.model.now && last < 9e15 {
			r.store.Mini.SetTTL(key, time.Duration(ms(last)-r.model.swept)*time.Millisecond)
		}
	}
}
