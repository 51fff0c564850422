package allocator

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"pgregory.net/rapid"
)

// The calls that a sequence of the model's test draws.

var (
	modelServices = []string{"x", "y", "z"}
	modelServers  = []string{"s1", "s2", "s3"}
	modelSecrets  = []string{
		"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002",
		"00000000-0000-4000-8000-000000000003", "00000000-0000-4000-8000-000000000004",
	}
	// One holder is named as a secret: by its name nobody may end what it has. Another is named as a port, which such a name means.
	modelNames = []string{"ann", "bob", "cy", "dan/1:a@b+c=d~e", "10001", modelSecrets[0]}
)

// The ports cross 10000: in Redis's order of equals 10000 comes before 9999.
const modelMin, modelMax = 9995, 10010

// target draws a service to act on: mostly one that is there, and mostly of the same pool.
func (r *run) target(t *rapid.T, act string) request {
	a, b := r.pools[0], r.pools[1]
	c := request{act: act, pool: rapid.SampledFrom([]string{a, a, a, b}).Draw(t, "pool")}
	services := slices.Sorted(maps.Keys(r.model.pool(c.pool).services))
	if len(services) == 0 && act != "create" && act != "put" && rapid.IntRange(0, 3).Draw(t, "none") > 0 {
		c.pool = map[string]string{a: b, b: a}[c.pool]
		services = slices.Sorted(maps.Keys(r.model.pool(c.pool).services))
	}
	if len(services) == 0 || rapid.IntRange(0, 9).Draw(t, "any") == 0 {
		services = modelServices
	}
	c.service = rapid.SampledFrom(services).Draw(t, "service")
	return c
}

// known draws a secret that was of an offer or a claim, and now and then takes it to another service or pool.
func (r *run) known(t *rapid.T, act string) request {
	c := r.target(t, act)
	if len(r.made) == 0 {
		c.secret = rapid.SampledFrom(modelSecrets).Draw(t, "secret")
		return c
	}
	recent := r.made[max(0, len(r.made)-8):]
	if open := r.open(); len(open) > 0 && rapid.IntRange(0, 2).Draw(t, "open") > 0 {
		recent = open
	}
	made := recent[len(recent)-1-rapid.IntRange(0, len(recent)-1).Draw(t, "made, back")]
	c.secret = made.want.Secret
	if rapid.IntRange(0, 5).Draw(t, "astray") < 5 {
		c.pool, c.service = made.pool, made.service
	}
	return c
}

// claimOffered claims what is on offer to the same holder.
func (r *run) claimOffered(t *rapid.T) {
	open := r.open()
	if len(open) == 0 {
		t.Skip("nothing is on offer")
	}
	made := rapid.SampledFrom(open).Draw(t, "made")
	w := want{own: true}
	w.Name, w.Secret, w.Lease = made.want.Name, made.want.Secret, optional(r.lease(t))
	r.step(t, request{act: "claim", caller: drawCaller(t), pool: made.pool, service: made.service, wants: []want{w}})
}

// worthATry are wants that were served: those that are offers still, the last ones, or all.
func (r *run) worthATry(t *rapid.T) []madeWant {
	switch rapid.IntRange(0, 2).Draw(t, "which") {
	case 0:
		return r.made[max(0, len(r.made)-6):]
	case 1:
		if open := r.open(); len(open) > 0 {
			return open
		}
	}
	return r.made
}

// open are the wants whose offers can be accepted.
func (r *run) open() (open []madeWant) {
	for _, made := range r.made {
		if state, _, _ := r.model.lookUp(r.model.pool(made.pool), made.service, made.want.Secret); state == "open" {
			open = append(open, made)
		}
	}
	return open
}

func (r *run) cooldown(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{0, 0, quarantine / 2, quarantine, 2 * quarantine, 5 * time.Minute}).Draw(t, "cool-down")
}

func (r *run) define(t *rapid.T) {
	c := r.target(t, rapid.SampledFrom([]string{"create", "put"}).Draw(t, "act"))
	c.description = rapid.SampledFrom([]string{"", `it's "quoted" <ü>`}).Draw(t, "description")
	c.start = rapid.IntRange(modelMin, modelMax).Draw(t, "start")
	c.end = min(modelMax, c.start+rapid.IntRange(0, 6).Draw(t, "more"))
	c.exclude = excluded(t, c.start, c.end)
	c.cooldown, c.pick = r.cooldown(t), drawPick(t)
	c.drawLeases(t)
	r.step(t, c)
}

// resize widens, narrows or moves a range by a little.
func (r *run) resize(t *rapid.T) {
	c := r.target(t, "put")
	more := 2
	if full := r.full(c.pool); len(full) > 0 && rapid.Bool().Draw(t, "for those who wait") {
		c.service, more = rapid.SampledFrom(full).Draw(t, "full"), 4
	}
	s := r.model.pool(c.pool).services[c.service]
	if s == nil {
		t.Skip("nothing to resize")
	}
	c.start = s.start + rapid.IntRange(-2, 2).Draw(t, "start by")
	c.end = max(c.start, s.end+rapid.IntRange(-2, more).Draw(t, "end by"))
	c.exclude = excluded(t, c.start, c.end)
	if c.cooldown = time.Duration(s.cooldown) * time.Millisecond; rapid.Bool().Draw(t, "another") {
		c.cooldown = r.cooldown(t)
	}
	if c.pick = s.pick; rapid.IntRange(0, 9).Draw(t, "another pick") == 0 {
		c.pick = drawPick(t)
	}
	c.drawLeases(t)
	r.step(t, c)
}

// remove removes a service: mostly one that can be removed although some wait for its ports, where there is such a one.
func (r *run) remove(t *rapid.T) {
	c := r.target(t, "remove")
	waitedFor := slices.DeleteFunc(r.full(c.pool), func(name string) bool {
		s := r.model.pool(c.pool).services[name]
		return len(r.model.waiting(r.model.pool(c.pool), s)) == 0 || len(r.model.holds(s)) > 0
	})
	if len(waitedFor) > 0 {
		c.service = rapid.SampledFrom(append(waitedFor, c.service)).Draw(t, "waited for")
	} else if rapid.Bool().Draw(t, "stay") {
		t.Skip("it stays")
	}
	r.step(t, c)
}

// take draws an offer or a claim, of one want or of a list; now and then one that was made before.
func (r *run) take(t *rapid.T) {
	c := r.target(t, rapid.SampledFrom([]string{"offer", "offer", "claim"}).Draw(t, "act"))
	var repeated []want
	if len(r.made) > 0 && rapid.IntRange(0, 5).Draw(t, "retry") == 5 {
		made := rapid.SampledFrom(r.worthATry(t)).Draw(t, "made")
		c.pool, c.service = made.pool, made.service
		again := made.want
		if again.own = true; rapid.Bool().Draw(t, "wants another") { // it gets what it has
			name, secret := again.Name, again.Secret
			again = r.want(t, c, true)
			again.Name, again.Secret, again.own = name, secret, true
		}
		again.Existing = again.Existing && c.act == "claim"
		repeated = append(repeated, again)
	}
	c.many = rapid.IntRange(0, 3).Draw(t, "list") == 0
	r.fill(t, &c, repeated, true)
	r.step(t, c)
}

// fill draws the wants of a call beside those that it has already.
func (r *run) fill(t *rapid.T, c *request, wants []want, exact bool) {
	c.ttl, c.caller = long, drawCaller(t)
	if rapid.IntRange(0, 9).Draw(t, "ttl") < 5 {
		c.ttl = blink
	}
	more := 0
	if c.many {
		more = rapid.IntRange(0, 2).Draw(t, "more wants")
	}
	for range max(1-len(wants), more) {
		w := r.want(t, *c, exact)
		w.Existing = c.act == "claim" && rapid.IntRange(0, 3).Draw(t, "existing") == 0
		if fits(w, wants) {
			wants = append(wants, w)
		}
	}
	c.wants = wants
}

// fits reports whether a list may have a want beside others: it has a name, a secret and ports of its own.
func fits(w want, others []want) bool {
	return !slices.ContainsFunc(others, func(o want) bool {
		return o.Name == w.Name || o.own && o.Secret == w.Secret ||
			w.Port != nil && o.Port != nil && *w.Port < *o.Port+o.count() && *o.Port < *w.Port+w.count()
	})
}

func (r *run) want(t *rapid.T, c request, exact bool) (w want) {
	w.Name = rapid.SampledFrom(modelNames).Draw(t, "name")
	w.Secret = rapid.SampledFrom(append([]string{"", "", "", ""}, modelSecrets...)).Draw(t, "secret")
	w.own = w.Secret != ""
	w.Lease = optional(r.lease(t))
	w.Labels = rapid.SampledFrom([]Labels{"", "", "", job, other}).Draw(t, "labels")
	port := modelMin
	if s := r.model.pool(c.pool).services[c.service]; s != nil {
		port = rapid.IntRange(s.start, s.end).Draw(t, "port")
		if rapid.IntRange(0, 7).Draw(t, "outside") == 0 {
			port = rapid.SampledFrom([]int{s.start - 1, s.end + 1}).Draw(t, "port")
		}
	}
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 7:
		w.Prefer = new(port)
	case 8, 12:
		if exact {
			w.Port = new(port)
		}
	case 9, 13:
		if exact {
			w.Port = new(port)
		}
		w.Count = new(rapid.IntRange(1, 3).Draw(t, "count"))
	case 10, 11:
		w.Count = new(rapid.IntRange(2, 4).Draw(t, "count"))
	}
	if rapid.IntRange(0, 5).Draw(t, "aligned") == 0 {
		w.Align = new(rapid.SampledFrom([]int{2, 2, 2, 3, 4}).Draw(t, "align"))
		for _, port := range []*int{w.Port, w.Prefer} {
			if port != nil {
				*port = multiple(*port, *w.Align)
			}
		}
	}
	return w
}

func (r *run) lease(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{0, 0, 0, MinLease, MinLease, time.Minute + time.Millisecond}).Draw(t, "lease")
}

func (r *run) accept(t *rapid.T) {
	c := r.known(t, "accept")
	c.lease, c.caller = r.lease(t), drawCaller(t)
	r.step(t, c)
}

func (r *run) reject(t *rapid.T) {
	c := r.known(t, "reject")
	c.caller = drawCaller(t)
	c.inUse = rapid.Bool().Draw(t, "in use")
	r.step(t, c)
}

// holder draws a port or a name, mostly of an allocation that is there, whose secret and fence it returns.
func (r *run) holder(t *rapid.T, act string) (c request, secret string, fence int64) {
	c = r.target(t, act)
	s := r.model.pool(c.pool).services[c.service]
	var there []*hold
	if s != nil {
		there = slices.DeleteFunc(r.model.holds(s), func(h *hold) bool { return h.fence == 0 })
	}
	if len(there) > 0 && rapid.IntRange(0, 3).Draw(t, "held") < 3 {
		h := rapid.SampledFrom(there).Draw(t, "allocation")
		c.holder = h.name
		if rapid.Bool().Draw(t, "by port") {
			c.holder = strconv.Itoa(h.port + rapid.IntRange(0, h.count-1).Draw(t, "of the block"))
		}
		return c, h.secret, h.fence
	}
	if rapid.Bool().Draw(t, "by name") {
		c.holder = rapid.SampledFrom(modelNames).Draw(t, "name")
	} else {
		c.holder = strconv.Itoa(rapid.IntRange(modelMin, modelMax).Draw(t, "port"))
	}
	return c, "", 1
}

// proof draws the secret to show: mostly the right one.
func (r *run) proof(t *rapid.T, right string) string {
	all := append([]string{right, right, right}, modelSecrets[:2]...)
	if len(r.made) > 0 {
		all = append(all, rapid.SampledFrom(r.made).Draw(t, "made").want.Secret)
	}
	all = slices.DeleteFunc(all, func(s string) bool { return s == "" })
	return rapid.SampledFrom(all).Draw(t, "secret")
}

func (r *run) renew(t *rapid.T) {
	c, right, _ := r.holder(t, "renew")
	c.secret, c.lease, c.caller = r.proof(t, right), r.lease(t), drawCaller(t)
	if rapid.IntRange(0, 3).Draw(t, "bounded") == 0 {
		r.step(t, request{act: "change", pool: c.pool, service: c.service, part: "leases", longest: MinLease})
		c.lease = 0
	}
	r.step(t, c)
}

func (r *run) release(t *rapid.T) {
	c, right, f := r.holder(t, "release")
	c.caller = drawCaller(t)
	if rapid.Bool().Draw(t, "with secret") {
		c.secret = r.proof(t, right)
	}
	c.fences = rapid.SampledFrom([][]int64{nil, nil, nil, {f}, {f - 1}, {f + 1, f - 1}, {f + 1, f}}).Draw(t, "fences")
	c.inUse = rapid.IntRange(0, 3).Draw(t, "in use") == 0
	r.step(t, c)
}

func (r *run) again(t *rapid.T) {
	if r.last.act == "" {
		t.Skip("nothing to repeat")
	}
	r.step(t, r.last)
}

// wait lets time pass, to just before, at, or just after the time when something ends by itself. miniredis may leave keys behind
// that it should have deleted by then.
func (r *run) wait(t *rapid.T) {
	ends := r.model.deadlines()
	if len(ends) == 0 {
		t.Skip("nothing to wait for")
	}
	if rapid.IntRange(0, 3).Draw(t, "soon") > 0 {
		ends = ends[:min(len(ends), 4)]
	}
	if i, _ := slices.BinarySearch(ends, r.model.now+beatFor/2); i > 0 && rapid.IntRange(0, 3).Draw(t, "sooner") > 0 {
		ends = ends[:i] // no position is lost that was just kept
	}
	end := rapid.SampledFrom(ends).Draw(t, "end")
	r.model.now = max(r.model.now, end+rapid.Int64Range(-1, 1).Draw(t, "off by"))
	late := r.store.Mini != nil && rapid.Bool().Draw(t, "late")
	r.setTime(late)
	t.Logf("time is %d, keys are deleted up to %d", r.model.now, r.model.swept)
}

// deadlines are the times to come at which something ends by itself.
func (m *model) deadlines() (times []ms) {
	for _, p := range m.pools {
		for _, k := range p.secrets {
			times = append(times, k.expires, k.forgotten+m.now-m.swept)
		}
		for _, s := range p.services {
			for _, port := range s.ports {
				times = append(times, port.score, port.score+s.cooldown, port.rests)
			}
		}
		for _, lost := range p.beats {
			times = append(times, lost)
		}
		for _, until := range p.rest {
			times = append(times, until)
		}
	}
	times = slices.DeleteFunc(times, func(t ms) bool { return t <= m.now })
	slices.Sort(times)
	return slices.Compact(times)
}
