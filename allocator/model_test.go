package allocator

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// The model of the allocator: what the scripts promise, in plain Go, for one call at a time. model_run_test.go drives
// both and compares every answer and the whole state. How calls take ports is in model_take_test.go and
// model_pick_test.go, who waits for them in model_waitlist_test.go, and what becomes of them in model_hold_test.go. Which calls
// are made is in model_draw_test.go and model_call_test.go, and how the state is read in model_state_test.go.
// Which faults of the scripts it notices is in cmd/portmaster/systemtest/README.md, under "The catalogue of mutants".

// ms is a time of the store's clock, Unix milliseconds, or a span of it.
type ms = int64

// request is one call of the Allocator.
type request struct {
	act           string // see model.do
	caller        Caller
	pool, service string
	wants         []want // offer, claim
	many          bool   // they come as a list
	ttl           time.Duration
	ticket        string        // offer, claim, leave: in the waitlist
	stay          bool          // offer, claim: wait where nothing is free
	server        string        // beat
	tickets       []string      // look
	secret        string        // accept, reject, readOffer, renew, release
	lease         time.Duration // accept, renew
	inUse         bool          // reject, release
	holder        string        // renew, release, readAllocation: a port or a name
	fences        []int64
	description   string // create, put
	start, end    int
	exclude       []Range // create, put
	cooldown      time.Duration
	part          string // change: which part of the definition
	labels        Labels // label: those to set
	gone          []string
	pick          Pick

	byDefault, longest time.Duration // create, put: leases; 0: none
}

// want is a Request, and whether its secret is the caller's own. One without has the secret that was drawn for it.
type want struct {
	Request
	own bool
}

// answer is what a call answers with.
type answer struct {
	Code        Code // "" for success
	Fields      []string
	Created     bool
	Waits       bool // the call has to wait
	Known       bool // beat: the server's places were kept
	Size        int  // look: how many ports there are
	RetryAfter  ms   // also of a call that waits, and of a look
	Service     Service
	Services    []Service
	Offers      []Offer // also those of a call that offers
	Allocations []Allocation
	Map         PortMap
	Free        []int           // the ports that go out next
	Waiting     []WaitingCall   // in their order
	Tickets     []string        // those whose turn it is, and those that have lost their place
	needNot     map[string]bool // those of Tickets that may be left out
}

func (c request) String() string { return brief(c) }
func (a answer) String() string  { return brief(a) }
func (w want) String() string    { return brief(w.Request) + map[bool]string{true: "own"}[w.own] }

// brief shows the fields of a struct that are set.
func brief(of any) string {
	v, text := reflect.ValueOf(of), ""
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			text += fmt.Sprintf(" %s:%+v", v.Type().Field(i).Name, v.Field(i))
		}
	}
	return "{" + strings.TrimSpace(text) + "}"
}

// model is the state of all pools.
type model struct {
	now   ms // the store's clock
	swept ms // up to when the store deleted the keys that ran out: some stores are late at that
	grace ms // for how long the store has a key beyond its TTL
	pools map[string]*modelPool
	notes []string // what happened in the last call that its answer does not show
}

type modelPool struct {
	fence    int64
	given    []int64 // the fences that the store gave in the last call
	services map[string]*modelService
	secrets  map[string]*known
	rest     map[int]ms    // port -> until when it rests, whether it is in a range or not
	beats    map[string]ms // server -> until when its places are kept

	histories map[string]*modelHistory // by service
}

type modelService struct {
	description string
	start, end  int
	holes       map[int]bool // ports between that it does not have
	cooldown    ms
	pick        Pick
	last        map[int]lastHolder // by port, if it picks by name
	created     ms
	ports       map[int]*modelPort // those handed out, and not gathered since: all others are fresh
	line        []*waiter
	history     *modelHistory
	leases      modelLeases
	lateRoom    bool         // the store does not know how long its runs of fresh ports are by now
	chosen      map[int]int  // the block that the store chose where it does not: want -> port; see run.follow
	nowFresh    map[int]bool // the ports that are fresh in the store after the call
}

// modelPort is a port that was handed out.
type modelPort struct {
	hold  *hold // of who has it, or had it last; nil where it was given back
	score ms    // the end of the hold; without meaning where it has none
	rests ms    // until when it is kept out, whatever the cool-down is; 0 where that says
}

// hold is an offer or an allocation, of one port or several in a row.
type hold struct {
	name, secret string
	owner        string
	labels       Labels
	port, count  int
	created      ms    // the offer, or the allocation
	fence        int64 // 0 for an offer
	lease        ms
	expires      ms // the offer, or the lease; 0 for never
}

func (h *hold) lives(now ms) bool { return h != nil && (h.expires == 0 || now < h.expires) }

func newModel(now, grace ms) *model {
	return &model{now: now, swept: now, grace: grace, pools: map[string]*modelPool{}}
}

func (m *model) pool(name string) *modelPool {
	if m.pools[name] == nil {
		m.pools[name] = &modelPool{
			services: map[string]*modelService{}, secrets: map[string]*known{}, rest: map[int]ms{}, beats: map[string]ms{},
			histories: map[string]*modelHistory{},
		}
	}
	return m.pools[name]
}

func (m *model) note(what string) { m.notes = append(m.notes, what) }

// do answers a call. Each act checks everything, and then writes.
func (m *model) do(c request) answer {
	m.notes = nil
	p := m.pool(c.pool)
	s := p.services[c.service]
	switch c.act {
	case "create", "put":
		return m.define(p, c)
	case "services":
		return answer{Services: m.services(p)}
	case "offer", "claim":
		return m.take(p, c)
	case "accept":
		return m.accept(p, c)
	case "reject":
		return m.reject(p, c)
	case "readOffer":
		return m.readOffer(p, c)
	case "release":
		return m.release(p, s, c)
	case "beat":
		return m.beat(p, c)
	case "look":
		return m.look(p, s, c)
	case "leave":
		return m.leave(p, s, c)
	}
	if s == nil {
		return answer{Code: CodeServiceNotFound}
	}
	switch c.act {
	case "remove":
		return m.remove(p, c)
	case "change":
		return m.change(p, s, c)
	case "renew":
		return m.renew(s, c)
	case "label":
		return m.label(s, c)
	case "service":
		return answer{Service: m.service(p, c.service, s)}
	case "offers":
		return answer{Offers: m.offers(c.service, s)}
	case "allocations":
		return answer{Allocations: m.allocations(c.service, s)}
	case "map":
		return answer{Map: m.mapOf(c.service, s)}
	case "waitingCalls":
		return answer{Waiting: m.waitingCalls(p, s)}
	case "freePorts":
		return answer{Free: m.freePorts(s)}
	case "readAllocation":
		h := m.find(s, c.holder)
		if h == nil {
			return answer{Code: CodePortNotFound}
		}
		return answer{Allocations: []Allocation{h.allocation(c.service)}}
	}
	panic("no such act: " + c.act)
}

func (m *model) define(p *modelPool, c request) answer {
	s := p.services[c.service]
	if s != nil && c.act == "create" {
		return answer{Code: CodeServiceExists}
	}
	ports := c.portsOf()
	for name, other := range p.services {
		if name != c.service && slices.ContainsFunc(ports, other.has) {
			return answer{Code: CodeRangeOverlap}
		}
	}
	outside := func(number int) bool { return !slices.Contains(ports, number) }
	created := s == nil
	if created {
		s = &modelService{created: m.now, start: 1, end: 0, ports: map[int]*modelPort{}, last: map[int]lastHolder{}, history: p.history(c.service)}
		s.history.addRange("defined", c)
	}
	cut := false
	for number, port := range s.ports {
		if outside(number) && port.hold.lives(m.now) {
			return answer{Code: CodeRangeInUse}
		}
		cut = cut || outside(number)
	}
	for _, port := range s.ports {
		if port.rests > 0 && port.rests <= m.now {
			port.score, port.rests = port.freedAt(s), 0
		}
	}
	if cut || c.cooldown.Milliseconds() < s.cooldown {
		m.putToRest(p, s)
	}

	if created {
		p.services[c.service] = s
	}
	for _, number := range ports {
		if rests := p.rest[number]; !s.has(number) && rests > m.now {
			m.note("came back while it rests")
			s.ports[number] = &modelPort{rests: rests}
		}
	}
	was := s.spans()
	s.setRanges(ports)
	if !created && (!slices.Equal(was, s.spans()) || s.description != c.description || s.cooldown != c.cooldown.Milliseconds() || s.pick != c.pick || s.leases != c.leases()) {
		s.history.addRange("changed", c)
	}
	if s.pick != c.pick {
		clear(s.last)
	}
	s.description, s.cooldown, s.pick, s.leases = c.description, c.cooldown.Milliseconds(), c.pick, c.leases()
	maps.DeleteFunc(s.last, func(number int, _ lastHolder) bool { return outside(number) })
	maps.DeleteFunc(s.ports, func(number int, _ *modelPort) bool { return outside(number) })
	return answer{Created: created, Service: m.service(p, c.service, s)}
}

// putToRest makes what cools down rest until its time, whatever becomes of the service.
func (m *model) putToRest(p *modelPool, s *modelService) {
	for number, port := range s.ports {
		if until := port.score + s.cooldown; !port.hold.lives(m.now) && port.rests == 0 && until > m.now {
			m.note("put to rest")
			*port = modelPort{rests: until}
			p.rest[number] = until
		}
	}
}

func (m *model) remove(p *modelPool, c request) answer {
	s := p.services[c.service]
	for _, port := range s.ports {
		if port.hold.lives(m.now) {
			return answer{Code: CodeServiceInUse}
		}
	}
	if len(m.waiting(p, s)) > 0 {
		m.note("removed while some wait")
	}
	m.putToRest(p, s)
	s.history.events = append(s.history.events, strings.TrimSuffix("removed request="+c.caller.RequestID, " request="))
	if delete(p.services, c.service); len(p.services) == 0 {
		clear(p.beats)
	}
	return answer{}
}

func (m *model) service(p *modelPool, name string, s *modelService) Service {
	total, _ := s.size()
	counts := PortCounts{Total: total, Free: total}
	for _, port := range s.ports {
		of := &counts.Cooling
		switch {
		case port.hold.lives(m.now) && port.hold.fence > 0:
			of = &counts.Allocated
		case port.hold.lives(m.now):
			of = &counts.Offered
		case port.isFree(m.now, s):
			continue
		}
		*of++
		counts.Free--
	}
	return Service{
		Name: name, Description: s.description, Start: s.start, End: s.end, Ranges: s.several(), Created: date(s.created),
		Cooldown: time.Duration(s.cooldown) * time.Millisecond, Pick: s.pick, Waiting: len(m.waiting(p, s)), Ports: counts,
		DefaultLease: time.Duration(s.leases.byDefault) * time.Millisecond, MaxLease: time.Duration(s.leases.longest) * time.Millisecond,
	}
}

func (m *model) services(p *modelPool) (services []Service) {
	for name, s := range p.services {
		services = append(services, m.service(p, name, s))
	}
	slices.SortFunc(services, func(a, b Service) int { return a.Start - b.Start })
	return services
}

// isFree says whether a port that was handed out may be again.
func (port *modelPort) isFree(now ms, s *modelService) bool {
	return !port.hold.lives(now) && port.freedAt(s) <= now-s.cooldown
}

// freedAt is the time from which a port that nobody holds cools down.
func (port *modelPort) freedAt(s *modelService) ms {
	if port.rests > 0 {
		return port.rests - s.cooldown
	}
	return port.score
}

// holds are the open offers and the allocations of a service, by port.
func (m *model) holds(s *modelService) (holds []*hold) {
	for _, number := range slices.Sorted(maps.Keys(s.ports)) {
		if h := s.ports[number].hold; h.lives(m.now) && h.port == number {
			holds = append(holds, h)
		}
	}
	return holds
}

func (m *model) offers(service string, s *modelService) (offers []Offer) {
	for _, h := range m.holds(s) {
		if h.fence == 0 {
			offer := h.offer(service)
			offer.Secret = ""
			offers = append(offers, offer)
		}
	}
	return offers
}

func (m *model) allocations(service string, s *modelService) (allocations []Allocation) {
	for _, h := range m.holds(s) {
		if h.fence > 0 {
			allocations = append(allocations, h.allocation(service))
		}
	}
	return allocations
}

func (h *hold) offer(service string) Offer {
	return Offer{
		Service: service, Name: h.name, Port: h.port, Count: h.count, Owner: h.owner, Labels: h.labels, Secret: h.secret,
		Created: date(h.created), Expires: date(h.expires), Lease: time.Duration(h.lease) * time.Millisecond,
	}
}

func (h *hold) allocation(service string) Allocation {
	allocation := Allocation{
		Service: service, Name: h.name, Port: h.port, Count: h.count, Owner: h.owner, Labels: h.labels, Created: date(h.created), Fence: h.fence,
	}
	if h.expires > 0 {
		allocation.Expires = date(h.expires)
	}
	return allocation
}

func date(t ms) time.Time { return time.UnixMilli(t).UTC() }
