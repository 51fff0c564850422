//go:build !faults

package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// repeater is a client that makes each call twice.
type repeater struct {
	*replicas
	belongings
	id     int
	random *rand.Rand
	named  int // so many names it has used
	seen   outcomes
}

// twice makes a call twice, on any two servers, and throws the first answer away: or else it has hung up before that came,
// or makes both at once. Where the first was heard, the second must say the same, with the status of a repeat.
func (c *repeater) twice(what string, q request, first, again int) reply {
	c.t.Helper()
	c.seen[what]++
	var one, two reply
	switch c.random.IntN(6) {
	case 0:
		ctx, hangUp := context.WithTimeout(c.t.Context(), time.Duration(c.random.IntN(3000))*time.Microsecond)
		one = c.send(ctx, c.any(), q)
		hangUp()
		two = c.send(c.t.Context(), c.any(), q)
	case 1:
		done, server := make(chan reply), c.any()
		go func() { done <- c.send(c.t.Context(), server, q) }()
		two = c.send(c.t.Context(), c.any(), q)
		one = <-done
		if one.status == again && two.status == first || two.code == "PORT_TAKEN" {
			one, two = two, one // it is not said which came first
		}
	default:
		one = c.send(c.t.Context(), c.any(), q)
		two = c.send(c.t.Context(), c.any(), q)
	}
	c.compare(what, q, one, two, first, again)
	return two
}

// compare finds what is wrong with two answers. A certain port may be somebody else's, both times.
func (c *repeater) compare(what string, q request, one, two reply, first, again int) {
	c.t.Helper()
	heard := one.status != 0
	switch {
	case two.code == "PORT_TAKEN" && strings.Contains(q.body, `"port"`) && (!heard || one.code == "PORT_TAKEN"):
	case two.status == first && (!heard || one.code == "PORT_TAKEN"):
	case two.status != again || heard && one.status != first:
		c.t.Errorf("%s: %s (%s), and again %s (%s)\n%+v", what, one.code, one.detail, two.code, two.detail, q)
	case heard && !slices.Equal(things(one), things(two)) && !strings.HasSuffix(q.path, "/renew"):
		c.t.Errorf("%s: %+v, and again %+v\n%+v", what, one, two, q)
	}
}

// things are what an answer has, be it a list or not.
func things(answer reply) []held {
	if answer.list != nil {
		return answer.list
	}
	return []held{answer.held}
}

// any is one of the servers.
func (c *repeater) any() int { return c.random.IntN(len(c.servers)) }

// act makes one call of all kinds that there are.
func (c *repeater) act() {
	kind := c.random.IntN(100)
	if len(c.kept) > 12 {
		kind = 60 + c.random.IntN(40)
	}
	switch {
	case kind < 12:
		c.take("offer", 1)
	case kind < 24:
		c.take("claim", 1)
	case kind < 28:
		c.take("offer", 2+c.random.IntN(3))
	case kind < 32:
		c.take("claim", 2+c.random.IntN(3))
	case kind < 42:
		c.acceptOrClaim()
	case kind < 52:
		c.renew()
	case kind < 75:
		c.reject()
	default:
		c.release()
	}
}

// take offers or claims one or several things that it wants.
func (c *repeater) take(act string, several int) {
	what, body := c.want()
	if several > 1 {
		bodies := []string{body}
		for range several - 1 {
			_, another := c.want()
			if !strings.Contains(another, `"port"`) { // which might be asked for twice
				bodies = append(bodies, another)
			}
		}
		what, body = " of many", "["+strings.Join(bodies, ",")+"]"
	}
	path := map[string]string{"offer": "/offers", "claim": "/ports"}[act]
	got := c.twice(act+what, request{method: "POST", path: path, body: body}, 201, 200)
	if got.status != 201 && got.status != 200 {
		return
	}
	c.keep(things(got)...)
	if act == "claim" && several == 1 && c.random.IntN(3) == 0 {
		c.claimLongAfter(request{method: "POST", path: path, body: body}, got)
	}
}

// claimLongAfter repeats a claim when the secret is remembered no more, but by the allocation.
func (c *repeater) claimLongAfter(q request, got reply) {
	c.seen["claim long after"]++
	if n := c.store.Admin.Del(c.t.Context(), c.store.Prefix+":{default}:offer:"+got.Secret).Val(); n != 1 {
		c.t.Errorf("%d keys of the secret are there after a claim", n)
	}
	if again, _ := c.expect(200, c.any(), q); again.held != got.held {
		c.t.Errorf("%+v was claimed, and long after it was %+v", got.held, again.held)
	}
}

// want is what it wants, in words and in JSON.
func (c *repeater) want() (what, body string) {
	c.named++
	body = fmt.Sprintf(`{"name":"client-%d-%d","secret":%q`, c.id, c.named, uuid.NewString())
	switch c.random.IntN(6) {
	case 0:
		what, body = " of a port", body+fmt.Sprintf(`,"port":%d`, c.first+c.random.IntN(c.ports))
	case 1:
		what, body = " of any, best this", body+fmt.Sprintf(`,"prefer":%d`, c.first+c.random.IntN(c.ports))
	case 2:
		what, body = " of a block", body+fmt.Sprintf(`,"count":%d`, 2+c.random.IntN(3))
	case 3:
		what, body = " for a lease", body+`,"lease":"1h"`
	case 4:
		what, body = " of a block", body+fmt.Sprintf(`,"lease":3600,"count":%d`, 2+c.random.IntN(3))
	}
	return what, body + "}"
}

func (c *repeater) keep(all ...held) {
	for _, h := range all {
		if h.Fence != 0 {
			c.fences++
		}
		c.kept = append(c.kept, &belonging{held: h})
	}
}

// drop forgets what it has no more.
func (c *repeater) drop(b *belonging) {
	c.kept = slices.DeleteFunc(c.kept, func(other *belonging) bool { return other == b })
}

// acceptOrClaim accepts an offer, either way.
func (c *repeater) acceptOrClaim() {
	b := c.find(false)
	if b == nil {
		return
	}
	what, q := "accept", request{method: "POST", path: "/offers/" + b.Secret + "/accept"}
	switch c.random.IntN(3) {
	case 0:
		what, q.body = "accept for a lease", `{"lease":"2h"}`
	case 1:
		what, q = "claim of an offer", request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q,"secret":%q}`, b.Name, b.Secret)}
	}
	got := c.twice(what, q, 201, 200)
	if got.Port != b.Port || got.size() != b.size() || got.Fence == 0 {
		c.t.Errorf("%s: %+v became %+v", what, b, got)
	}
	secret := b.Secret
	b.held = got.held
	b.Secret = secret
	c.fences++
}

func (c *repeater) renew() {
	b := c.find(true)
	if b == nil {
		return
	}
	what, body := "renew", fmt.Sprintf(`{"secret":%q,"lease":"90m"}`, b.Secret)
	if !b.Expires.IsZero() && c.random.IntN(2) == 0 {
		what, body = "renew as before", fmt.Sprintf(`{"secret":%q}`, b.Secret)
	}
	got := c.twice(what, request{method: "POST", path: c.pathOf(b) + "/renew", body: body}, 200, 200)
	if got.Fence != b.Fence || got.Port != b.Port || got.Expires.Before(b.Expires) && what == "renew as before" {
		c.t.Errorf("%s: %+v became %+v", what, b, got)
	}
	b.Expires, b.late = got.Expires, true
}

func (c *repeater) reject() {
	b := c.find(false)
	if b == nil {
		return
	}
	what, q := "reject", request{method: "DELETE", path: "/offers/" + b.Secret}
	if c.random.IntN(4) == 0 {
		what, q = "reject in use", request{method: "POST", path: "/offers/" + b.Secret + "/reject", body: `{"reason":"in_use"}`}
		c.keepOut(b.Port, b.size())
	}
	c.twice(what, q, 204, 204)
	c.drop(b)
}

// pathOf names an allocation by its name, or by any of its ports.
func (c *repeater) pathOf(b *belonging) string {
	if c.random.IntN(2) == 0 {
		return "/ports/" + b.Name
	}
	return fmt.Sprintf("/ports/%d", b.Port+c.random.IntN(b.size()))
}

// release releases an allocation. Sometimes another claims the name, and the port if it can, before the call is repeated:
// that must lose nothing.
func (c *repeater) release() {
	b := c.find(true)
	if b == nil {
		return
	}
	q := request{method: "DELETE", path: c.pathOf(b), secret: b.Secret}
	c.drop(b)
	switch c.random.IntN(12) {
	case 0, 1, 2, 3, 4, 5, 6:
		c.twice("release", q, 204, 204)
		return
	case 7:
		c.keepOut(b.Port, b.size())
		q.path += "?reason=in_use"
		c.twice("release in use", q, 204, 204)
		return
	}
	c.seen["release before another claimed the name"]++
	c.expect(204, c.any(), q)
	next := c.send(c.t.Context(), c.any(), request{
		method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q,"secret":%q,"port":%d}`, b.Name, uuid.NewString(), b.Port),
	})
	if next.status == 0 || next.code == "PORT_TAKEN" {
		next, _ = c.expect(201, c.any(), request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":%q}`, b.Name)})
	}
	c.expect(204, c.any(), q)
	if still, _ := c.expect(200, c.any(), request{method: "GET", path: "/ports/" + b.Name}); still.Fence != next.Fence {
		c.t.Errorf("%+v was released, and %+v had the name by then: now there is %+v", b, next.held, still.held)
	}
	c.keep(next.held)
}

// waitAndRelease claims a port of a service that has fewer than there are clients, waits for it, and gives it back.
func (c *repeater) waitAndRelease() {
	c.named++
	c.seen["claim in line"]++
	name, secret := fmt.Sprintf("waiter-%d-%d", c.id, c.named), uuid.NewString()
	q := request{method: "POST", path: "/ports?wait=30s", body: fmt.Sprintf(`{"name":%q,"secret":%q}`, name, secret)}
	ctx, hangUp := context.WithTimeout(c.t.Context(), time.Duration(c.random.IntN(50))*time.Millisecond)
	one := c.send(ctx, c.any(), q)
	hangUp()
	two := c.send(c.t.Context(), c.any(), q)
	c.compare("claim in line", q, one, two, 201, 200)
	if two.Fence == 0 {
		return
	}
	c.fences++
	time.Sleep(time.Duration(c.random.IntN(20)) * time.Millisecond)
	if got, _ := c.expect(200, c.any(), request{method: "GET", path: "/ports/" + name}); got.Fence != two.Fence {
		c.t.Errorf("it was told %+v, and there is %+v", two.held, got.held)
	}
	c.twice("release", request{method: "DELETE", path: "/ports/" + name, secret: secret}, 204, 204)
}
