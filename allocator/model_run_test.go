package allocator

import (
	"errors"
	goflag "flag"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"portmaster/allocator/storetest"
)

// TestModel makes random calls on the store and on the model, and compares every answer and the whole state. A failure
// is shrunk to few calls, which the log shows with their answers, and how to run them again.
func TestModel(t *testing.T) {
	const minSteps = 20_000
	replay := configureRapid(t)
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		r := &run{store: store, seen: map[string]int{}, allocators: map[time.Duration]*Allocator{
			long: newAllocator(store, long), short: newAllocator(store, short),
		}}
		for r.steps < minSteps {
			rapid.Check(t, r.sequence)
			if replay {
				break
			}
		}
		t.Logf("%d calls in %d sequences agree with the model; %d sequences were cut short by the clock", r.steps, r.number, r.cut)
		for _, outcome := range slices.Sorted(maps.Keys(r.seen)) {
			t.Logf("%6d %s", r.seen[outcome], outcome)
		}
		for _, outcome := range outcomes {
			if r.seen[outcome] == 0 && !replay {
				t.Errorf("%s was never seen: the calls do not try enough", outcome)
			}
		}
	})
}

// outcomes is what calls can answer with; Created is told from repeated, or changed, by "new".
var outcomes = strings.Fields(`
	create/new create/SERVICE_EXISTS create/RANGE_OVERLAP put/new put put/RANGE_OVERLAP put/RANGE_IN_USE
	remove remove/SERVICE_NOT_FOUND remove/SERVICE_IN_USE
	offer/new offer offer/SERVICE_NOT_FOUND offer/NAME_TAKEN offer/EXHAUSTED offer/INVALID offer/OFFER_ACCEPTED offer/OFFER_REJECTED
	accept/new accept accept/SERVICE_NOT_FOUND accept/OFFER_NOT_FOUND accept/OFFER_REJECTED
	reject reject/SERVICE_NOT_FOUND reject/OFFER_NOT_FOUND reject/OFFER_ACCEPTED
	release release/SERVICE_NOT_FOUND release/PORT_NOT_FOUND release/PRECONDITION_FAILED`)

// configureRapid makes the sequences long, unless the command line says otherwise. It reports whether that
// names a case to run again.
func configureRapid(t *testing.T) (replay bool) {
	given := map[string]bool{}
	goflag.Visit(func(f *goflag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": "10", "rapid.steps": "200", "rapid.shrinktime": "20s"} {
		if !given[name] {
			if err := goflag.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return given["rapid.failfile"] || given["rapid.seed"] || testing.Short()
}

// run drives a store and the model.
type run struct {
	store      storetest.Store
	allocators map[time.Duration]*Allocator // by how long their offers are open
	number     int                          // of sequences
	steps, cut int
	seen       map[string]int // outcome -> how often

	// of one sequence
	model  *model
	pools  []string
	offers []request // those made, whose secrets are worth a try
	last   request
	spoilt bool
}

var (
	modelServices = []string{"x", "y", "z"}
	modelNames    = []string{"ann", "bob", "cy", "dan"}
	modelSecrets  = []string{
		"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002",
		"00000000-0000-4000-8000-000000000003", "00000000-0000-4000-8000-000000000004",
	}
)

// The ports cross 10000: in Redis's order of equals 10000 comes before 9999.
const modelMin, modelMax = 9995, 10006

func (r *run) sequence(t *rapid.T) {
	r.number++
	r.pools = []string{fmt.Sprintf("a%d", r.number), fmt.Sprintf("b%d", r.number)}
	r.offers, r.last, r.spoilt = nil, request{}, false
	r.model = newModel(r.now(t))
	for _, pool := range r.pools {
		r.model.pool(pool)
	}
	r.step(t, request{act: "put", pool: r.pools[0], service: "x", start: modelMin, end: modelMin + 4})
	t.Repeat(map[string]func(*rapid.T){
		"define":  r.define,
		"resize":  r.resize,
		"remove":  func(t *rapid.T) { r.step(t, r.target(t, "remove")) },
		"offer":   r.offer,
		"offer 2": r.offer, // more often than the others
		"offer 3": r.offer,
		"accept":  func(t *rapid.T) { r.step(t, r.known(t, "accept")) },
		"reject":  func(t *rapid.T) { r.step(t, r.known(t, "reject")) },
		"release": r.release,
		"again":   r.again,
		"wait":    r.wait,
	})
	r.everything(t)
}

// target draws a service to act on: mostly one that is there, and mostly of the same pool.
func (r *run) target(t *rapid.T, act string) request {
	a, b := r.pools[0], r.pools[1]
	c := request{act: act, pool: rapid.SampledFrom([]string{a, a, a, b}).Draw(t, "pool")}
	services := slices.Sorted(maps.Keys(r.model.pool(c.pool).services))
	if len(services) == 0 || rapid.IntRange(0, 9).Draw(t, "any") == 0 {
		services = modelServices
	}
	c.service = rapid.SampledFrom(services).Draw(t, "service")
	return c
}

// known draws a secret that was made an offer, and now and then takes it to another service or pool.
func (r *run) known(t *rapid.T, act string) request {
	c := r.target(t, act)
	if len(r.offers) == 0 {
		c.secret = rapid.SampledFrom(modelSecrets).Draw(t, "secret")
		return c
	}
	recent := r.offers[max(0, len(r.offers)-8):]
	made := recent[len(recent)-1-rapid.IntRange(0, len(recent)-1).Draw(t, "offer, back")]
	c.secret = made.secret
	if rapid.IntRange(0, 5).Draw(t, "astray") < 5 {
		c.pool, c.service = made.pool, made.service
	}
	return c
}

func (r *run) define(t *rapid.T) {
	c := r.target(t, rapid.SampledFrom([]string{"create", "put"}).Draw(t, "act"))
	c.description = rapid.SampledFrom([]string{"", `it's "quoted" <ü>`}).Draw(t, "description")
	c.start = rapid.IntRange(modelMin, modelMax).Draw(t, "start")
	c.end = min(modelMax, c.start+rapid.IntRange(0, 4).Draw(t, "more"))
	r.step(t, c)
}

// resize widens, narrows or moves a range by a little.
func (r *run) resize(t *rapid.T) {
	c := r.target(t, "put")
	s := r.model.pool(c.pool).services[c.service]
	if s == nil {
		t.Skip("nothing to resize")
	}
	c.start = s.start + rapid.IntRange(-2, 2).Draw(t, "start by")
	c.end = max(c.start, s.end+rapid.IntRange(-2, 2).Draw(t, "end by"))
	r.step(t, c)
}

func (r *run) offer(t *rapid.T) {
	if len(r.offers) > 0 && rapid.IntRange(0, 5).Draw(t, "retry") == 5 {
		c := rapid.SampledFrom(r.offers).Draw(t, "made")
		c.own = true
		r.step(t, c)
		return
	}
	c := r.target(t, "offer")
	c.name = rapid.SampledFrom(modelNames).Draw(t, "name")
	c.secret = rapid.SampledFrom(append([]string{"", "", "", ""}, modelSecrets...)).Draw(t, "secret")
	c.own = c.secret != ""
	c.ttl = long
	if rapid.IntRange(0, 9).Draw(t, "ttl") < r.shortOffers() {
		c.ttl = short
	}
	r.step(t, c)
}

// shortOffers is how many offers of ten are short: few where the clock is real, and running out takes its time.
func (r *run) shortOffers() int {
	if r.store.Mini != nil {
		return 5
	}
	return 2
}

// release draws a port or a name, mostly of an allocation that is there.
func (r *run) release(t *rapid.T) {
	c := r.target(t, "release")
	held := request{act: "allocations", pool: c.pool, service: c.service}
	if there := r.model.do(held).Allocations; len(there) > 0 && rapid.IntRange(0, 3).Draw(t, "held") < 3 {
		allocation := rapid.SampledFrom(there).Draw(t, "allocation")
		c.holder = rapid.SampledFrom([]string{allocation.Name, strconv.Itoa(allocation.Port)}).Draw(t, "holder")
		f := allocation.Fence
		c.fences = rapid.SampledFrom([][]int64{nil, nil, {f}, {f - 1}, {f + 1, f - 1}, {f + 1, f}}).Draw(t, "fences")
	} else if rapid.Bool().Draw(t, "by name") {
		c.holder = rapid.SampledFrom(modelNames).Draw(t, "name")
	} else {
		c.holder = strconv.Itoa(rapid.IntRange(modelMin, modelMax).Draw(t, "port"))
	}
	r.step(t, c)
}

func (r *run) again(t *rapid.T) {
	if r.last.act == "" {
		t.Skip("nothing to repeat")
	}
	c := r.last
	if c.act == "offer" && !c.own {
		c.secret = ""
	}
	r.step(t, c)
}

// wait lets time pass, to just before, at, or just after the time when something ends by itself. Where the clock is
// virtual it may leave keys behind that the store should have deleted by then.
func (r *run) wait(t *rapid.T) {
	ends := r.model.deadlines()
	if len(ends) == 0 {
		t.Skip("nothing to wait for")
	}
	if r.store.Mini == nil {
		if delay := ends[0] - r.now(t); delay < 2*short.Milliseconds() {
			time.Sleep(time.Duration(delay) * time.Millisecond)
		}
		return
	}
	end := rapid.SampledFrom(ends).Draw(t, "end")
	r.model.now = max(r.model.now, end+rapid.Int64Range(-1, 1).Draw(t, "off by"))
	if rapid.Bool().Draw(t, "delete keys") {
		r.store.Mini.FastForward(time.Duration(r.model.now-r.model.swept) * time.Millisecond)
		r.model.swept = r.model.now
	}
	t.Logf("time is %d, keys are deleted up to %d", r.model.now, r.model.swept)
}

// step makes a call on both, and compares. On a real clock the store's time of the call is learnt from what it wrote.
func (r *run) step(t *rapid.T, c request) {
	if r.spoilt {
		return
	}
	from := r.settle(t)
	got := r.do(t, &c)
	look, looked := r.look(c), r.steps%2 == 0
	var seen answer
	if looked {
		seen = r.do(t, &look)
	}
	pools := []string{c.pool}
	if r.steps%8 == 0 {
		pools = r.pools // a call leaves the other pool alone
	}
	state, free, to := r.describe(t, pools)

	r.advance(from)
	ends := r.model.deadlines()
	r.advance(r.stamp(t, c, got, free, from, to))
	want := r.model.do(c)
	if slices.ContainsFunc(append(ends, r.model.deadlines()...), func(end ms) bool { return end <= to }) {
		r.spoilt = true // something ended while we looked: there is no telling what is right
		r.cut++
		return
	}

	t.Logf("%v -> %v", c, got)
	r.compare(t, c, got, want, to-from)
	if looked {
		r.compare(t, look, seen, r.model.do(look), to-from)
	}
	if want := r.model.describe(pools); !slices.Equal(state, want) {
		r.differ(t, "the state after %v\n got %s\nwant %s", c, strings.Join(state, "\n     "), strings.Join(want, "\n     "))
	}
	if c.act == "offer" && got.Created {
		r.offers = append(r.offers, c)
	}
	r.last = c
	r.steps++
	r.seen[outcome(c, got)]++
}

// differ ends a sequence. What is particular to this run of it stands in the log alone: rapid shrinks as long as a
// sequence fails with the same words.
func (r *run) differ(t *rapid.T, format string, args ...any) {
	t.Logf(format, args...)
	t.Fatal("the store and the model differ")
}

func outcome(c request, got answer) string {
	switch {
	case got.Code != "":
		return c.act + "/" + string(got.Code)
	case got.Created:
		return c.act + "/new"
	}
	return c.act
}

func (r *run) compare(t *rapid.T, c request, got, want answer, slack ms) {
	if r.store.Mini == nil && got.RetryAfter != want.RetryAfter && got.RetryAfter <= want.RetryAfter && got.RetryAfter >= want.RetryAfter-slack {
		got.RetryAfter = want.RetryAfter
	}
	if !reflect.DeepEqual(got, want) {
		r.differ(t, "%v\n got %v\nwant %v", c, got, want)
	}
}

// look returns a call that reads what a call was about, or an older offer: one of each kind in turns.
func (r *run) look(c request) request {
	read := request{pool: c.pool, service: c.service, holder: modelNames[r.steps%len(modelNames)], secret: c.secret}
	acts, turn := []string{"service", "offers", "allocations", "readAllocation"}, r.steps/2
	read.act = acts[turn%len(acts)]
	if n := len(r.offers); n > 0 && turn%3 == 0 {
		old := r.offers[turn%n]
		read = request{act: "readOffer", pool: old.pool, service: old.service, secret: old.secret}
	} else if c.secret != "" && turn%3 == 1 {
		read.act = "readOffer"
	}
	return read
}

// everything reads all there is, through every call that reads.
func (r *run) everything(t *rapid.T) {
	if r.spoilt {
		return
	}
	var reads []request
	for _, pool := range r.pools {
		reads = append(reads, request{act: "services", pool: pool})
		for _, service := range modelServices {
			for _, act := range []string{"service", "offers", "allocations"} {
				reads = append(reads, request{act: act, pool: pool, service: service})
			}
			for _, name := range modelNames {
				reads = append(reads, request{act: "readAllocation", pool: pool, service: service, holder: name})
			}
		}
	}
	for _, made := range r.offers {
		reads = append(reads, request{act: "readOffer", pool: made.pool, service: made.service, secret: made.secret})
	}
	for _, c := range reads {
		from := r.settle(t)
		got := r.do(t, &c)
		to := r.now(t)
		r.advance(from)
		if ends := r.model.deadlines(); len(ends) > 0 && ends[0] <= to {
			return
		}
		r.compare(t, c, got, r.model.do(c), to-from)
	}
}

// do makes a call on the store. It tells the call the secret that was drawn for it.
func (r *run) do(t *rapid.T, c *request) (got answer) {
	a := r.allocators[long]
	if c.ttl != 0 {
		a = r.allocators[c.ttl]
	}
	ctx := t.Context()
	var err error
	d := Definition{Name: c.service, Description: c.description, Start: c.start, End: c.end}
	switch c.act {
	case "create":
		got.Service, err = a.Create(ctx, c.pool, d)
		got.Created = err == nil
	case "put":
		got.Service, got.Created, err = a.Define(ctx, c.pool, d)
	case "remove":
		err = a.Remove(ctx, c.pool, c.service)
	case "offer":
		secret := c.secret
		if !c.own {
			secret = ""
		}
		got.Offer, got.Created, err = a.Offer(ctx, c.pool, c.service, c.name, secret)
		c.secret = got.Offer.Secret
		if c.own {
			c.secret = secret
		}
	case "accept":
		got.Allocation, got.Created, err = a.Accept(ctx, c.pool, c.service, c.secret)
	case "reject":
		err = a.Reject(ctx, c.pool, c.service, c.secret)
	case "release":
		err = a.Release(ctx, c.pool, c.service, c.holder, c.fences...)
	case "service":
		got.Service, err = a.Service(ctx, c.pool, c.service)
	case "services":
		got.Services, _, err = a.Services(ctx, c.pool, "", MaxPage)
	case "offers":
		got.Offers, _, err = a.Offers(ctx, c.pool, c.service, "", MaxPage)
	case "allocations":
		got.Allocations, _, err = a.Allocations(ctx, c.pool, c.service, "", MaxPage)
	case "readOffer":
		got.Offer, err = a.OpenOffer(ctx, c.pool, c.service, c.secret)
	case "readAllocation":
		got.Allocation, err = a.Allocation(ctx, c.pool, c.service, c.holder)
	}
	got.Service = visible(got.Service)
	for i := range got.Services {
		got.Services[i] = visible(got.Services[i])
	}
	if err != nil {
		known, ok := errors.AsType[*Error](err)
		if !ok {
			r.differ(t, "%v: %v", c, err)
		}
		return answer{Code: known.Code, RetryAfter: known.RetryAfter.Milliseconds()}
	}
	return got
}

// visible is what a caller sees of a service.
func visible(s Service) Service {
	s.fresh, s.now = nil, time.Time{}
	return s
}

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
func (r *run) stamp(t *rapid.T, c request, got answer, free map[string]ms, from, to ms) ms {
	stamp := from
	p := r.model.pool(c.pool)
	switch {
	case got.Code != "":
		return from
	case got.Created && c.act == "offer":
		stamp = got.Offer.Created.UnixMilli()
	case got.Created && c.act == "accept":
		stamp = got.Allocation.Created.UnixMilli()
	case got.Created: // create, put
		stamp = got.Service.Created.UnixMilli()
	case c.act == "release" && p.services[c.service] != nil:
		stamp = free[portKey(c, p.services[c.service].find(c.holder))]
	case c.act == "reject" && p.tickets[c.secret] != nil && !p.tickets[c.secret].rejected:
		stamp = free[portKey(c, p.tickets[c.secret].port)]
	}
	if stamp < from || stamp > to {
		r.differ(t, "%v -> %v wrote the time %d, which is not within %d-%d", c, got, stamp, from, to)
	}
	return stamp
}

func portKey(c request, port int) string { return fmt.Sprintf("%s/%s %d", c.pool, c.service, port) }

// describe tells the whole state of some pools of the store in lines, as model.describe does, and what is inconsistent in it; also the
// time from which each port is free, and the time when all was read.
func (r *run) describe(t *rapid.T, pools []string) (lines []string, freeFrom map[string]ms, now ms) {
	type read struct {
		pool, service      string
		record             *redis.MapStringStringCmd
		free               *redis.ZSliceCmd
		names, held, ports *redis.MapStringStringCmd
	}
	var (
		ctx      = t.Context()
		a        = r.allocators[long]
		services = map[string][2]*redis.ZSliceCmd{}
		fences   = map[string]*redis.StringCmd{}
		reads    []read
		listed   *redis.BoolSliceCmd
		clock    *redis.TimeCmd
		add      = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	)
	_, err := r.store.Admin.Pipelined(ctx, func(p redis.Pipeliner) error {
		listed = p.SMIsMember(ctx, a.poolsKey(), r.pools[0], r.pools[1])
		for _, pool := range pools {
			k := a.keys(pool)
			services[pool] = [2]*redis.ZSliceCmd{p.ZRangeWithScores(ctx, k.services(), 0, -1), p.ZRangeWithScores(ctx, k.ends(), 0, -1)}
			fences[pool] = p.Get(ctx, k.fence())
			for _, s := range modelServices {
				reads = append(reads, read{pool, s, p.HGetAll(ctx, k.service(s)), p.ZRangeWithScores(ctx, k.free(s), 0, -1),
					p.HGetAll(ctx, k.names(s)), p.HGetAll(ctx, k.offers(s)), p.HGetAll(ctx, k.ports(s))})
			}
		}
		clock = p.Time(ctx)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	now = r.model.now
	if r.store.Mini == nil {
		now = clock.Val().UnixMilli()
	}

	for _, pool := range pools {
		if listed.Val()[slices.Index(r.pools, pool)] {
			add("%s is listed", pool)
		}
		fence, _ := strconv.Atoi(fences[pool].Val())
		add("%s gave fence %d", pool, fence)
	}
	freeFrom = map[string]ms{}
	for _, s := range reads {
		at := s.pool + "/" + s.service
		about := s.record.Val()
		start, listed := score(services[s.pool][0], s.service)
		end, _ := score(services[s.pool][1], s.service)
		if !listed {
			if left := len(about) + len(s.free.Val()) + len(s.names.Val()) + len(s.held.Val()) + len(s.ports.Val()); left > 0 {
				add("%s is not listed, and left %d fields", at, left)
			}
			continue
		}
		if about["start"] != fmt.Sprint(start) || about["end"] != fmt.Sprint(end) {
			add("%s is listed with another range than its own", at)
		}
		add("%s %d-%d %q created %s", at, start, end, about["description"], about["created"])

		names := map[string]string{}
		port := func(number string) string { return at + " " + number }
		for number, text := range s.ports.Val() {
			allocation, err := parseAllocation(s.service, record(text))
			if err != nil {
				t.Fatal(err)
			}
			if strconv.Itoa(allocation.Port) != number {
				add("%s is allocated as %s", port(number), text)
			}
			add("%s allocated to %s at %d, fence %d", port(number), allocation.Name, allocation.Created.UnixMilli(), allocation.Fence)
			names[allocation.Name] = number
		}
		for _, z := range s.free.Val() {
			number := z.Member.(string)
			freeFrom[port(number)] = ms(z.Score)
			text, offered := s.held.Val()[number]
			offer, _ := parseOffer(record(text))
			if offered {
				names[offer.Name] = number
				if offer.Expires.UnixMilli() != ms(z.Score) || strconv.Itoa(offer.Port) != number {
					add("%s is offered as %s", port(number), text)
				}
			}
			if offered && ms(z.Score) > now {
				add("%s offered to %s at %d until %d", port(number), offer.Name, offer.Created.UnixMilli(), ms(z.Score))
			} else {
				add("%s free from %d", port(number), ms(z.Score))
			}
		}
		for number := range s.held.Val() {
			if _, ok := freeFrom[port(number)]; !ok {
				add("%s has an offer, and no time when it is free", port(number))
			}
		}
		if !maps.Equal(names, s.names.Val()) {
			add("%s has the names %v, and they should be %v", at, s.names.Val(), names)
		}
		for _, run := range spans(about["fresh"]) {
			for number := run.from; number <= run.to; number++ {
				add("%s fresh", port(strconv.Itoa(number)))
			}
		}
	}
	slices.Sort(lines)
	return lines, freeFrom, now
}

func score(set *redis.ZSliceCmd, member string) (int, bool) {
	for _, z := range set.Val() {
		if z.Member == member {
			return int(z.Score), true
		}
	}
	return 0, false
}

// spans reads the field fresh of a service.
func spans(fresh string) (spans []span) {
	for part := range strings.FieldsSeq(fresh) {
		var s span
		fmt.Sscanf(part, "%d-%d", &s.from, &s.to)
		spans = append(spans, s)
	}
	return spans
}
