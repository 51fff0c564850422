//go:build !faults

package systemtest

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// lease is an allocation that a client keeps to itself, and renews so many times before it lets it run out.
type lease struct {
	*ticket
	ends     time.Time
	renewals int
}

// keep claims a port under a name that nobody else has, and does not tell of it.
func (c *fighter) keep() {
	e := event{act: "claim", how: "for a lease", name: fmt.Sprintf("kept-%d", c.id), secret: uuid.NewString(), lease: 1000}
	got := c.call(request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q,"secret":%q,"lease":1}`, e.name, e.secret)}, e)[0]
	if succeeded(got) {
		c.kept = &lease{ticket: c.ticketOf(got), ends: time.UnixMilli(got.expires), renewals: c.random.IntN(3)}
	}
}

// tend looks after the lease that a client keeps. It is false where there is nothing to do.
func (c *fighter) tend() bool {
	k := c.kept
	if k == nil {
		if c.id%2 == 0 && c.chance(10) {
			c.keep()
			return true
		}
		return false
	}
	left := time.Until(k.ends)
	switch {
	case left > 300*time.Millisecond || left > 0 && k.renewals == 0:
		return false
	case left > 0:
		k.renewals--
		if got := c.renewKept("in time"); got.code == "200" {
			k.ends = time.UnixMilli(got.expires)
			return true
		}
	case c.chance(2):
		c.renewKept("too late")
	default:
		e, path := c.holder(k.ticket, event{act: "release own", how: "too late", secret: k.secret})
		c.call(request{method: "DELETE", path: path, secret: k.secret}, e)
	}
	c.kept = nil
	return true
}

func (c *fighter) renewKept(how string) event {
	e, path := c.holder(c.kept.ticket, event{act: "renew", how: how, secret: c.kept.secret, lease: 1000})
	return c.call(request{method: "POST", path: path + "/renew", body: fmt.Sprintf(`{"secret":%q,"lease":1}`, e.secret)}, e)[0]
}
