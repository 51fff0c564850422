package allocator

import (
	goflag "flag"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"portmaster/allocator/storetest"
)

var modelCalls = goflag.Int("model.calls", 10_000, "how many calls TestModel makes on each store, at the least (with the race detector fewer on miniredis); "+
	"100000 is a long run")

// TestModel makes random calls on the store and on the model, and compares every answer and the whole state. A failure
// is shrunk to few calls, which the log shows with their answers, and how to run them again. Both stores together must see every
// outcome; what is rare needs more calls now and then.
func TestModel(t *testing.T) {
	t.Parallel()
	replay := configureRapid(t)
	all := &run{seen: map[string]int{}}
	var both sync.WaitGroup
	onMini, onRedis := *modelCalls, *modelCalls
	round := func() {
		both.Go(func() {
			t.Run("miniredis", func(t *testing.T) { all.add(walk(t, storetest.Mini, onMini, replay)) })
		})
		both.Go(func() {
			t.Run("redis", func(t *testing.T) { all.add(walk(t, clocked, onRedis, replay)) })
		})
		both.Wait()
	}
	round()
	for more := 0; more < 8 && !replay && !t.Failed() && len(all.unseen()) > 0; more++ {
		onMini, onRedis = onMini/2, onRedis/2
		round()
	}
	for _, outcome := range slices.Sorted(maps.Keys(all.seen)) {
		t.Logf("%6d %s", all.seen[outcome], outcome)
	}
	if unseen := all.unseen(); !replay && !t.Failed() && len(unseen) > 0 {
		t.Errorf("never seen: %q: the calls do not try enough", unseen)
	}
}

// modelStart is the time at which every walk begins.
var modelStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func clocked(t testing.TB) storetest.Store { return storetest.Clocked(t, modelStart) }

// walk makes so many calls, by several drivers at a time. Each has a store of its own, whose time it sets.
func walk(t *testing.T, open func(testing.TB) storetest.Store, calls int, replay bool) *run {
	const drivers = 2
	all := &run{seen: map[string]int{}}
	var running sync.WaitGroup
	for i := range drivers {
		r := newRun(open(t), i)
		running.Go(func() {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				defer func() {
					if t.Failed() { // what cannot be repeated, rapid does not show
						t.Logf("the first difference: %s", r.differed)
					}
				}()
				rapid.Check(t, r.sequence)
				for r.steps < calls/drivers && !replay {
					rapid.Check(t, r.sequence)
				}
			})
			all.add(r)
		})
	}
	running.Wait()
	t.Logf("%d calls in %d sequences agree with the model", all.steps, all.number)
	return all
}

// configureRapid makes the sequences long, unless the command line says otherwise. It reports whether that
// names a case to run again.
func configureRapid(t *testing.T) (replay bool) {
	given := map[string]bool{}
	goflag.Visit(func(f *goflag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": "5", "rapid.steps": "200", "rapid.shrinktime": "20s"} {
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
	id, number int                          // the run's, and that of its sequence
	steps      int
	seen       map[string]int // outcome -> how often
	adding     sync.Mutex
	differed   string // how the first sequence that failed did

	// of one sequence
	model   *model
	pools   []string
	made    []madeWant // those whose secrets are worth a try
	queue   []request  // those that joined a waitlist
	tickets int        // given; each run is of some servers
	last    request

	lastEvents map[string]string // key of a history -> the id of the last event that was read
}

func newRun(store storetest.Store, id int) *run {
	return &run{id: id, store: store, seen: map[string]int{}, allocators: map[time.Duration]*Allocator{
		long: withHistory(store, long, 1_000_000), blink: withHistory(store, blink, 1_000_000),
	}}
}

// add counts what another run has tried.
func (r *run) add(other *run) {
	r.adding.Lock()
	defer r.adding.Unlock()
	r.number, r.steps = r.number+other.number, r.steps+other.steps
	for outcome, n := range other.seen {
		r.seen[outcome] += n
	}
}

// unseen are the outcomes that have not come up.
func (r *run) unseen() []string {
	return slices.DeleteFunc(slices.Clone(outcomes), func(outcome string) bool { return r.seen[outcome] > 0 })
}

// madeWant is a want that was served.
type madeWant struct {
	pool, service string
	want          want
}

func (r *run) sequence(t *rapid.T) {
	r.number++
	r.pools = []string{fmt.Sprintf("a%d-%d", r.id, r.number), fmt.Sprintf("b%d-%d", r.id, r.number)}
	r.made, r.queue, r.tickets, r.last, r.lastEvents = nil, nil, 0, request{}, map[string]string{}
	now, grace := modelStart.UnixMilli(), ms(0)
	if r.model != nil {
		now = r.model.now
	}
	if r.store.Mini == nil {
		grace = 1 // ms: Redis has a key up to and with the last millisecond of its TTL
	}
	r.model = newModel(now, grace)
	r.setTime(false)
	for _, pool := range r.pools {
		r.model.pool(pool)
	}
	r.step(t, request{act: "put", pool: r.pools[0], service: "x", start: modelMin, end: modelMin + 5, cooldown: r.cooldown(t)})
	t.Repeat(map[string]func(*rapid.T){
		"define":  r.define,
		"resize":  r.resize,
		"change":  r.change,
		"remove":  r.remove,
		"take":    r.take,
		"take 2":  r.take, // more often than the others
		"take 3":  r.take,
		"take 4":  r.take,
		"accept":  r.accept,
		"reject":  r.reject,
		"claim":   r.claimOffered,
		"renew":   r.renew,
		"label":   r.label,
		"release": r.release,
		"free":    r.release,
		"join":    r.join,
		"join 2":  r.join,
		"ask":     r.ask,
		"ask 2":   r.ask,
		"let in":  r.letIn,
		"beat":    r.beat,
		"look":    r.lookAtLine,
		"leave":   r.leave,
		"again":   r.again,
		"wait":    r.wait,
	})
	r.everything(t)
}

// setTime sets the store's clock to the model's time. If it is late, miniredis still has the keys that ran out since the last time.
func (r *run) setTime(late bool) {
	now := time.UnixMilli(r.model.now)
	if r.store.Mini == nil {
		r.store.Clock.Stop(now)
	} else {
		r.store.Mini.SetTime(now)
	}
	if late {
		return
	}
	if r.store.Mini != nil {
		r.store.Mini.FastForward(time.Duration(r.model.now-r.model.swept) * time.Millisecond)
	}
	r.model.swept = r.model.now
}

// keepFence lets the fence of a pool whose last service was removed last as long as it does on Redis: where keys are deleted late,
// the time since the last deletion counts for its TTL, too.
func (r *run) keepFence(c request) {
	if c.act != "remove" || r.store.Mini == nil {
		return
	}
	fence := r.allocators[long].keys.Pool(c.pool).Fence()
	if left := r.store.Mini.TTL(fence); left == 2*time.Hour { // it was set just now
		r.store.Mini.SetTTL(fence, left+time.Duration(r.model.now-r.model.swept)*time.Millisecond)
	}
}

// step makes a call on both, and compares.
func (r *run) step(t *rapid.T, c request) {
	got := r.do(t, &c)
	r.keepFence(c)
	r.keepOwners(c)
	look, looked := r.look(c), r.steps%4 == 0
	var seen answer
	if looked {
		seen = r.do(t, &look)
	}
	pools := []string{c.pool}
	if r.steps%8 == 0 {
		pools = r.pools // a call leaves the other pool alone
	}
	state := r.describe(t, pools, c)
	r.follow(c, got, state)
	want := r.model.do(c)
	notes := r.model.notes

	t.Logf("%v -> %v", c, got)
	r.compare(t, c, got, want)
	if looked {
		r.compare(t, look, seen, r.model.do(look))
	}
	if want := r.model.describe(pools); !slices.Equal(state.lines, want) {
		r.differ(t, "the state after %v:\n%s", c, differences(state.lines, want))
	}
	r.compareEvents(t, c, state)
	r.remember(c, got, state)
	r.seen[outcome(c, got)]++
	for _, note := range notes {
		r.seen[note]++
	}
}

// remember keeps what later calls may refer to.
func (r *run) remember(c request, got answer, state *state) {
	for _, w := range c.wants {
		if got.Created && w.Secret != "" {
			r.made = append(r.made, madeWant{c.pool, c.service, w})
		}
	}
	if got.Waits && !slices.ContainsFunc(r.queue, func(q request) bool { return q.ticket == c.ticket }) {
		r.queue = append(r.queue, c)
	}
	for name, s := range r.model.pool(c.pool).services {
		s.lateRoom = state.late[c.pool+"/"+name]
		// When places that were lost are cleared away makes no difference, until their server is heard of again.
		s.line = slices.DeleteFunc(s.line, func(w *waiter) bool { return !state.line[w.ticket] })
	}
	r.last = c
	r.steps++
}

// follow tells the model which blocks and fences the store has chosen, for where it cannot know.
func (r *run) follow(c request, got answer, state *state) {
	p := r.model.pool(c.pool)
	p.given = nil
	for _, allocation := range got.Allocations {
		p.given = append(p.given, allocation.Fence)
	}
	s := r.model.pool(c.pool).services[c.service]
	if s == nil {
		return
	}
	s.chosen, s.nowFresh = map[int]int{}, map[int]bool{}
	for number := s.start; number <= s.end; number++ {
		s.nowFresh[number] = state.fresh[portKey(c.pool, c.service, number)]
	}
	for i := range c.wants {
		if i < len(got.Offers) {
			s.chosen[i] = got.Offers[i].Port
		} else if i < len(got.Allocations) {
			s.chosen[i] = got.Allocations[i].Port
		}
	}
}

// differ ends a sequence. What is particular to this run of it stands in the log alone: rapid shrinks as long as a
// sequence fails with the same words.
func (r *run) differ(t *rapid.T, format string, args ...any) {
	t.Logf(format, args...)
	if r.differed == "" {
		r.differed = fmt.Sprintf(format, args...)
	}
	t.Fatal("the store and the model differ")
}

func outcome(c request, got answer) string {
	act := c.act
	if c.many {
		act += "s"
	}
	if c.wants != nil && c.ticket != "" {
		act = "waiting-" + act
	}
	switch {
	case got.Code != "":
		return act + "/" + string(got.Code)
	case got.Waits:
		return act + "/waits"
	case got.Created:
		return act + "/new"
	}
	return act
}

func (r *run) compare(t *rapid.T, c request, got, want answer) {
	if c.act == "look" {
		want = want.untold(got)
	}
	if !reflect.DeepEqual(got, want) {
		r.differ(t, "%v\n got %v\nwant %v", c, got, want)
	}
}

// look returns a call that reads what a call was about, or an older offer: one of each kind in turns.
func (r *run) look(c request) request {
	acts, turn := []string{"service", "map", "freePorts", "waitingCalls", "offers", "allocations", "readAllocation"}, r.steps/4
	caller := modelCallers[turn%len(modelCallers)]
	read := request{caller: caller, pool: c.pool, service: c.service, holder: modelNames[turn/len(acts)%len(modelNames)], secret: c.secret}
	read.act = acts[turn%len(acts)]
	if n := len(r.made); n > 0 && turn%3 == 0 {
		old := r.made[turn%n]
		read = request{act: "readOffer", caller: caller, pool: old.pool, service: old.service, secret: old.want.Secret}
	} else if c.secret != "" && turn%3 == 1 {
		read.act = "readOffer"
	}
	return read
}

// everything reads all there is, through every call that reads.
func (r *run) everything(t *rapid.T) {
	var reads []request
	for _, pool := range r.pools {
		reads = append(reads, request{act: "services", pool: pool})
		for _, service := range modelServices {
			for _, act := range []string{"service", "map", "freePorts", "waitingCalls", "offers", "allocations"} {
				reads = append(reads, request{act: act, pool: pool, service: service})
			}
			for _, name := range modelNames {
				reads = append(reads, request{act: "readAllocation", pool: pool, service: service, holder: name})
			}
		}
	}
	for _, made := range r.made[max(0, len(r.made)-16):] {
		reads = append(reads, request{act: "readOffer", pool: made.pool, service: made.service, secret: made.want.Secret})
	}
	for _, c := range reads {
		got := r.do(t, &c)
		r.compare(t, c, got, r.model.do(c))
	}
}
