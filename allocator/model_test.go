package allocator

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The model of the allocator: what the scripts promise, in plain Go, for one call at a time. model_run_test.go drives
// both and compares every answer and the whole state.
//
// Faults that were put into the scripts to see who notices:
//
//	offer     name check skipped                          TestModel, TestManyClients
//	offer     picked without the score's bound            TestModel
//	offer     >= for > at the expiry of a name            TestModel
//	offer     stale name of the port not cleared          TestModel
//	offer     stale offer of the name not cleared         TestModel
//	accept    written before checked                      TestModel
//	accept    ZREM forgotten                              TestModel
//	accept    the secret remembered for longer, or not    TestModel, TestKeysOfOffersEnd
//	release   HDEL of names forgotten                     TestModel
//	release   fence not compared                          TestModel
//	define    spans lost when widened                     TestModel
//	define    stale names of cut ports stay               TestPortsCutOffLeaveNothing, TestManyPortsAreCutOff
//	define    only the first chunk is checked             TestManyPortsAreCutOff
//	remove    open offers ignored                         TestRemovedServiceLeavesNothing
//	secret    > for >= at the expiry                      TestModel
//	secret    the port's record not compared              TestKeyThatOutlivesItsTimeOpensNothing
//	reject    the secret remembered for longer            TestModel, TestKeysOfOffersEnd
//	reject    a key made up in Lua                        TestContracts
//	reject    an error that the header does not list      TestContracts
//	door      the client repeats a call                   TestCallIsSentOnce

// ms is a time of the store's clock: Unix milliseconds.
type ms = int64

// request is one call of the Allocator.
type request struct {
	act           string // see model.do
	pool, service string
	name          string        // offer
	secret        string        // offer, accept, reject, readOffer; an offer without one of the caller's own has the one drawn
	own           bool          // offer: the secret is the caller's own
	ttl           time.Duration // offer
	holder        string        // release, readAllocation: a port or a name
	fences        []int64
	description   string // create, put
	start, end    int
}

// answer is what a call answers with.
type answer struct {
	Code        Code // "" for success
	Created     bool
	RetryAfter  ms
	Service     Service
	Offer       Offer
	Allocation  Allocation
	Services    []Service
	Offers      []Offer
	Allocations []Allocation
}

func (c request) String() string { return brief(c) }
func (a answer) String() string  { return brief(a) }

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
	pools map[string]*modelPool
}

type modelPool struct {
	listed   bool // the pool was ever to be given a service
	fence    int64
	services map[string]*modelService
	tickets  map[string]*ticket // by secret
}

type modelService struct {
	description string
	start, end  int
	created     ms
	ports       map[int]*modelPort // those ever handed out: all others are fresh
}

// modelPort is a port that was handed out: allocated, on offer until it is free, or free since then.
type modelPort struct {
	name, secret string // of who has it, or had it last
	fence        int64  // of its allocation; 0 where it has none
	created      ms     // of the offer, or the allocation
	free         ms     // from when it is free, where it is not allocated
}

// ticket is what the store remembers of a secret.
type ticket struct {
	service, name string
	port          int
	created       ms
	expires       ms
	forgotten     ms // when the store deletes it, by the time up to which it has swept
	rejected      bool
}

func newModel(now ms) *model { return &model{now: now, swept: now, pools: map[string]*modelPool{}} }

func (m *model) pool(name string) *modelPool {
	if m.pools[name] == nil {
		m.pools[name] = &modelPool{services: map[string]*modelService{}, tickets: map[string]*ticket{}}
	}
	return m.pools[name]
}

// do answers a call. Each act checks everything, and then writes.
func (m *model) do(c request) answer {
	p := m.pool(c.pool)
	s := p.services[c.service]
	switch c.act {
	case "create", "put":
		return m.define(p, c)
	case "services":
		return answer{Services: m.services(p)}
	case "offer":
		return m.offer(p, c)
	case "accept":
		return m.accept(p, c)
	case "reject":
		return m.reject(p, c)
	case "readOffer":
		state, t := m.lookUp(p, c)
		if state != "open" {
			return answer{Code: p.closed(c.service, state)}
		}
		return answer{Offer: t.offer(c.secret)}
	}
	if s == nil {
		return answer{Code: CodeServiceNotFound}
	}
	switch c.act {
	case "remove":
		return m.remove(p, c.service)
	case "release":
		return m.release(s, c)
	case "service":
		return answer{Service: m.service(c.service, s)}
	case "offers":
		return answer{Offers: m.offers(c.service, s)}
	case "allocations":
		return answer{Allocations: m.allocations(c.service, s)}
	case "readAllocation":
		port := s.find(c.holder)
		if port == 0 {
			return answer{Code: CodePortNotFound}
		}
		return answer{Allocation: s.ports[port].allocation(c.service, port)}
	}
	panic("no such act: " + c.act)
}

func (m *model) define(p *modelPool, c request) answer {
	p.listed = true
	s := p.services[c.service]
	if s != nil && c.act == "create" {
		return answer{Code: CodeServiceExists}
	}
	for name, other := range p.services {
		if name != c.service && other.start <= c.end && other.end >= c.start {
			return answer{Code: CodeRangeOverlap}
		}
	}
	outside := func(port int, _ *modelPort) bool { return port < c.start || port > c.end }
	if s != nil {
		for port, held := range s.ports {
			if outside(port, held) && !held.isFree(m.now) {
				return answer{Code: CodeRangeInUse}
			}
		}
	}

	created := s == nil
	if created {
		s = &modelService{created: m.now, ports: map[int]*modelPort{}}
		p.services[c.service] = s
	}
	s.description, s.start, s.end = c.description, c.start, c.end
	maps.DeleteFunc(s.ports, outside) // a port that comes back is fresh again
	return answer{Created: created, Service: m.service(c.service, s)}
}

func (m *model) remove(p *modelPool, name string) answer {
	for _, port := range p.services[name].ports {
		if !port.isFree(m.now) {
			return answer{Code: CodeServiceInUse}
		}
	}
	delete(p.services, name)
	return answer{}
}

func (m *model) offer(p *modelPool, c request) answer {
	if c.own {
		state, t := m.lookUp(p, c)
		switch {
		case state == "elsewhere", state != "" && t.name != c.name:
			return answer{Code: CodeInvalid}
		case state == "open":
			return answer{Offer: t.offer(c.secret)}
		case state != "":
			return answer{Code: p.closed(c.service, state)}
		}
	}
	s := p.services[c.service]
	if s == nil {
		return answer{Code: CodeServiceNotFound}
	}
	for _, port := range s.ports {
		if port.name == c.name && !port.isFree(m.now) {
			return answer{Code: CodeNameTaken}
		}
	}
	port := s.pick(m.now)
	if port == 0 {
		return answer{Code: CodeExhausted, RetryAfter: s.nextFree(m.now)}
	}

	t := &ticket{service: c.service, name: c.name, port: port, created: m.now, expires: m.now + c.ttl.Milliseconds()}
	m.remember(t, t.expires)
	p.tickets[c.secret] = t
	s.ports[port] = &modelPort{name: c.name, secret: c.secret, created: m.now, free: t.expires}
	return answer{Created: true, Offer: t.offer(c.secret)}
}

func (m *model) accept(p *modelPool, c request) answer {
	state, t := m.lookUp(p, c)
	if state == "accepted" {
		return answer{Allocation: p.services[c.service].ports[t.port].allocation(c.service, t.port)}
	}
	if state != "open" {
		return answer{Code: p.closed(c.service, state)}
	}

	p.fence++
	port := p.services[c.service].ports[t.port]
	port.fence, port.created = p.fence, m.now
	if minute := m.now + 60_000; minute < t.expires {
		m.remember(t, minute)
	}
	return answer{Created: true, Allocation: port.allocation(c.service, t.port)}
}

func (m *model) reject(p *modelPool, c request) answer {
	state, t := m.lookUp(p, c)
	if state == "rejected" {
		return answer{}
	}
	if state != "open" {
		return answer{Code: p.closed(c.service, state)}
	}

	port := p.services[c.service].ports[t.port]
	port.free = m.now
	t.rejected = true
	m.remember(t, m.now+60_000)
	return answer{}
}

func (m *model) release(s *modelService, c request) answer {
	number := s.find(c.holder)
	if number == 0 {
		return answer{Code: CodePortNotFound}
	}
	port := s.ports[number]
	if len(c.fences) > 0 && !slices.Contains(c.fences, port.fence) {
		return answer{Code: CodePreconditionFailed}
	}

	port.fence, port.free = 0, m.now
	return answer{}
}

// lookUp says what a secret is to a service: "" for nothing, elsewhere, open, accepted, or rejected.
func (m *model) lookUp(p *modelPool, c request) (state string, t *ticket) {
	t = p.tickets[c.secret]
	if t == nil || m.swept >= t.forgotten || m.now >= t.expires {
		return "", nil
	}
	if t.service != c.service {
		return "elsewhere", t
	}
	if t.rejected {
		return "rejected", t
	}
	s := p.services[c.service]
	if s == nil || s.ports[t.port] == nil || s.ports[t.port].secret != c.secret {
		return "", nil
	}
	switch port := s.ports[t.port]; {
	case port.fence > 0:
		return "accepted", t
	case !port.isFree(m.now):
		return "open", t
	}
	return "", nil
}

// closed is the error of a secret that opens nothing.
func (p *modelPool) closed(service, state string) Code {
	switch {
	case state == "accepted":
		return CodeOfferAccepted
	case state == "rejected":
		return CodeOfferRejected
	case p.services[service] == nil:
		return CodeServiceNotFound
	}
	return CodeOfferNotFound
}

// remember keeps a ticket until a time, or to the end of its offer where that comes first.
func (m *model) remember(t *ticket, until ms) {
	late := m.now - m.swept
	t.forgotten = min(until, t.expires) - late
}

// pick returns the port that has been free the longest, of equals the first in Redis's order; where there is none, the
// lowest that was never handed out; 0 where there is none either.
func (s *modelService) pick(now ms) int {
	var free []int
	for number, port := range s.ports {
		if port.isFree(now) {
			free = append(free, number)
		}
	}
	if len(free) > 0 {
		return slices.MinFunc(free, func(a, b int) int {
			return cmp.Or(cmp.Compare(s.ports[a].free, s.ports[b].free), cmp.Compare(strconv.Itoa(a), strconv.Itoa(b)))
		})
	}
	for number := s.start; number <= s.end; number++ {
		if s.ports[number] == nil {
			return number
		}
	}
	return 0
}

// nextFree returns how long it takes until a port comes free by itself; 0 where none will.
func (s *modelService) nextFree(now ms) (wait ms) {
	for _, port := range s.ports {
		if port.fence == 0 && (wait == 0 || port.free-now < wait) {
			wait = port.free - now
		}
	}
	return wait
}

// find returns the port that is allocated to a holder, who is named or is the port itself; 0 where there is none.
func (s *modelService) find(holder string) int {
	for number, port := range s.ports {
		if port.fence > 0 && (port.name == holder || strconv.Itoa(number) == holder) {
			return number
		}
	}
	return 0
}

func (port *modelPort) isFree(now ms) bool { return port.fence == 0 && port.free <= now }

func (m *model) service(name string, s *modelService) Service {
	offered, allocated := len(m.offers(name, s)), len(m.allocations(name, s))
	total := s.end - s.start + 1
	return Service{
		Name: name, Description: s.description, Start: s.start, End: s.end, Created: date(s.created),
		Ports: PortCounts{Total: total, Free: total - offered - allocated, Offered: offered, Allocated: allocated},
	}
}

func (m *model) services(p *modelPool) (services []Service) {
	for name, s := range p.services {
		services = append(services, m.service(name, s))
	}
	slices.SortFunc(services, func(a, b Service) int { return a.Start - b.Start })
	return services
}

func (m *model) offers(service string, s *modelService) (offers []Offer) {
	for _, number := range slices.Sorted(maps.Keys(s.ports)) {
		if port := s.ports[number]; port.fence == 0 && !port.isFree(m.now) {
			offers = append(offers, Offer{
				Service: service, Name: port.name, Port: number, Created: date(port.created), Expires: date(port.free),
			})
		}
	}
	return offers
}

func (m *model) allocations(service string, s *modelService) (allocations []Allocation) {
	for _, number := range slices.Sorted(maps.Keys(s.ports)) {
		if port := s.ports[number]; port.fence > 0 {
			allocations = append(allocations, port.allocation(service, number))
		}
	}
	return allocations
}

func (t *ticket) offer(secret string) Offer {
	return Offer{Service: t.service, Name: t.name, Port: t.port, Secret: secret, Created: date(t.created), Expires: date(t.expires)}
}

func (port *modelPort) allocation(service string, number int) Allocation {
	return Allocation{Service: service, Name: port.name, Port: number, Created: date(port.created), Fence: port.fence}
}

func date(t ms) time.Time { return time.UnixMilli(t).UTC() }

// deadlines are the times to come at which something ends by itself.
func (m *model) deadlines() (times []ms) {
	for _, p := range m.pools {
		for _, t := range p.tickets {
			times = append(times, t.expires, t.forgotten+m.now-m.swept)
		}
	}
	times = slices.DeleteFunc(times, func(t ms) bool { return t <= m.now })
	slices.Sort(times)
	return slices.Compact(times)
}

// describe tells the whole state of some pools in lines, as run.describe does of the store.
func (m *model) describe(pools []string) (lines []string) {
	for _, name := range pools {
		p := m.pools[name]
		if p.listed {
			lines = append(lines, fmt.Sprintf("%s is listed", name))
		}
		lines = append(lines, fmt.Sprintf("%s gave fence %d", name, p.fence))
		for service, s := range p.services {
			lines = append(lines, fmt.Sprintf("%s/%s %d-%d %q created %d", name, service, s.start, s.end, s.description, s.created))
			for number := s.start; number <= s.end; number++ {
				what := fmt.Sprintf("%s/%s %d ", name, service, number)
				switch port := s.ports[number]; {
				case port == nil:
					what += "fresh"
				case port.fence > 0:
					what += fmt.Sprintf("allocated to %s at %d, fence %d", port.name, port.created, port.fence)
				case port.isFree(m.now):
					what += fmt.Sprintf("free from %d", port.free)
				default:
					what += fmt.Sprintf("offered to %s at %d until %d", port.name, port.created, port.free)
				}
				lines = append(lines, what)
			}
		}
	}
	slices.Sort(lines)
	return lines
}
