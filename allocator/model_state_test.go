package allocator

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// The whole state of the store, told as the model tells its own, and what is inconsistent in it.

// describe tells the whole state of some pools in lines, as stored.describe does of the store.
func (m *model) describe(pools []string) (lines []string) {
	for _, name := range pools {
		p := m.pools[name]
		if len(p.services) > 0 {
			lines = append(lines, fmt.Sprintf("%s is listed", name))
		}
		lines = append(lines, m.describeOwners(name, p)...)
		for port, until := range p.rest {
			if until > m.now {
				lines = append(lines, fmt.Sprintf("%s %d rests until %d", name, port, until))
			}
		}
		for service, s := range p.services {
			at := name + "/" + service
			lines = append(lines, fmt.Sprintf("%s %s %q created %d, cool-down %d, pick %q, leases %q", at, textOf(s.spans()), s.description, s.created, s.cooldown, s.pick, s.leases.text()))
			lines = append(lines, s.describeLast(at)...)
			for i, w := range m.waiting(p, s) {
				lines = append(lines, fmt.Sprintf("%s line %d: %s until %d", at, i, w.ticket, p.beats[serverOf(w.ticket)]))
			}
			for number := s.start; number <= s.end; number++ {
				if s.has(number) {
					lines = append(lines, fmt.Sprintf("%s %d ", at, number)+m.describePort(s, s.ports[number]))
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func (m *model) describePort(s *modelService, port *modelPort) string {
	switch {
	case port == nil:
		return "fresh"
	case port.hold.lives(m.now):
		return port.hold.String()
	case port.rests > m.now:
		return fmt.Sprintf("rests until %d", port.rests)
	}
	return fmt.Sprintf("free from %d", port.freedAt(s))
}

func (h *hold) String() string {
	what := "offered to "
	if h.fence > 0 {
		what = fmt.Sprintf("fence %d allocated to ", h.fence)
	}
	return what + fmt.Sprintf("%s at %d+%d, created %d, until %d, lease %d, secret %s, owner %q, labels %s", h.name, h.port, h.count, h.created,
		h.expires, h.lease, h.secret, h.owner, h.labels)
}

// state is that of some pools, read at one time.
type state struct {
	lines  []string
	now    ms
	beats  map[string]ms       // pool/server -> until when its positions are kept
	line   map[string]bool     // ticket
	fresh  map[string]bool     // port, as of portKey
	fences map[int64]bool      // of all allocations of which there is a record
	events map[string][]string // by service: what the histories of the pool of the call have got
	late   map[string]bool     // pool/service, where room does not tell how long each run of fresh ports is by now
}

func (s *state) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func portKey(pool, service string, port int) string {
	return fmt.Sprintf("%s/%s %d", pool, service, port)
}

// stored is what the keys of a service hold.
type stored struct {
	pool, service        string
	about                map[string]string
	free, fresh, room    map[string]ms
	leases, resting      map[string]ms
	line                 []string
	names, offers, ports map[string]string
	labels, last         map[string]string
}

func (s *stored) at() string              { return s.pool + "/" + s.service }
func (s *stored) port(port string) string { return s.at() + " " + port }

// describe reads the state of some pools after a call. Of services that are not there, nothing must be left.
func (r *run) describe(t *rapid.T, pools []string, c request) *state {
	ctx, a := t.Context(), r.allocators[long]
	var read []func() *stored
	services := map[string][3]*redis.ZSliceCmd{}
	beats, lines, rest := map[string]*redis.ZSliceCmd{}, map[string]*redis.ZSliceCmd{}, map[string]*redis.MapStringStringCmd{}
	left, owned := map[string]*redis.IntCmd{}, map[string]*redis.ZSliceCmd{}
	var listed *redis.BoolSliceCmd
	var events func() map[string][]string
	_, err := r.store.Admin.Pipelined(ctx, func(p redis.Pipeliner) error {
		listed = p.SMIsMember(ctx, a.keys.Pools(), r.pools[0], r.pools[1])
		events = r.readEvents(t, p, c.pool)
		for _, pool := range pools {
			k := a.keys.Pool(pool)
			services[pool] = [3]*redis.ZSliceCmd{
				p.ZRangeWithScores(ctx, k.Services(), 0, -1), p.ZRangeWithScores(ctx, k.Ends(), 0, -1), p.ZRangeWithScores(ctx, k.Ranges(), 0, -1),
			}
			beats[pool], lines[pool] = p.ZRangeWithScores(ctx, k.Heartbeats(), 0, -1), p.ZRangeWithScores(ctx, k.Waitlists(), 0, -1)
			rest[pool] = p.HGetAll(ctx, k.Rest())
			for _, owner := range modelOwners {
				owned[pool+owner] = p.ZRangeWithScores(ctx, k.Owned(owner), 0, -1)
			}
			for _, service := range modelServices {
				if r.model.pool(pool).services[service] != nil || pool == c.pool && service == c.service {
					read = append(read, readService(t, p, a, pool, service))
				} else {
					left[pool+"/"+service] = p.Exists(ctx, ofService(k, service)...)
				}
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	s := &state{
		now: r.model.now, beats: map[string]ms{}, line: map[string]bool{}, fresh: map[string]bool{}, late: map[string]bool{}, fences: map[int64]bool{}, events: events(),
	}
	for _, pool := range pools {
		if listed.Val()[slices.Index(r.pools, pool)] {
			s.add("%s is listed", pool)
		}
		for _, owner := range modelOwners {
			s.describeOwner(pool, owner, owned[pool+owner])
		}
		for server, until := range scores(beats[pool]) {
			s.beats[pool+"/"+server] = until
		}
		for port, text := range rest[pool].Val() {
			if until, _ := strconv.ParseInt(text, 10, 64); until > s.now {
				s.add("%s %s rests until %d", pool, port, until)
			}
		}
	}
	for at, keys := range left {
		pool, service, _ := strings.Cut(at, "/")
		if _, listed := scores(services[pool][0])[service]; listed || keys.Val() > 0 || rangesInPool(service, services[pool]) != "" {
			s.add("%s is not there, and left %d keys, listed %v", at, keys.Val(), listed)
		}
	}
	for _, read := range read {
		of := read()
		start, listed := scores(services[of.pool][0])[of.service]
		inPool := rangesInPool(of.service, services[of.pool])
		if !listed {
			of.mustBeEmpty(s)
			continue
		}
		ranges := cmp.Or(of.about["ranges"], of.about["start"]+"-"+of.about["end"])
		if inPool != ranges || of.about["start"] != fmt.Sprint(start) || !strings.HasSuffix(ranges, "-"+of.about["end"]) {
			s.add("%s is %s, and listed from %d on as %s", of.at(), ranges, start, inPool)
		}
		s.add("%s %s %q created %s, cool-down %s, pick %q, leases %q", of.at(), ranges, of.about["description"], of.about["created"], of.about["cooldown"], of.about["pick"], of.about["lease_bounds"])
		for port, entry := range of.last {
			s.add("%s was last of %s", of.port(port), entry)
		}
		of.describe(s)
		if _, listed := scores(lines[of.pool])[of.service]; listed != (len(of.line) > 0) {
			s.add("%s has %d calls on the waitlist, and is listed among the waitlists: %v", of.at(), len(of.line), listed)
		}
	}
	slices.Sort(s.lines)
	return s
}

// ofService are the keys that are a service's own.
func ofService(k keyspace.Pool, service string) []string {
	ofPool := []string{k.Services(), k.Ends(), k.Ranges(), k.Rest(), k.Heartbeats(), k.Waitlists(), k.Events(service)}
	return slices.DeleteFunc(k.Call(lua.Define, service, "").Keys, func(key string) bool { return slices.Contains(ofPool, key) })
}

// readService asks for the keys of a service; what is returned gives what they hold.
func readService(t *rapid.T, p redis.Pipeliner, a *Allocator, pool, service string) func() *stored {
	ctx, k := t.Context(), a.keys.Pool(pool)
	hash := func(key string) *redis.MapStringStringCmd { return p.HGetAll(ctx, key) }
	set := func(key string) *redis.ZSliceCmd { return p.ZRangeWithScores(ctx, key, 0, -1) }
	about, names, offers, ports := hash(k.Service(service)), hash(k.Names(service)), hash(k.Offers(service)), hash(k.Ports(service))
	free, fresh, room, leases := set(k.Free(service)), set(k.Fresh(service)), set(k.RunLengths(service)), set(k.Leases(service))
	resting, line, labels, last := set(k.Resting(service)), set(k.Waitlist(service)), hash(k.Labels(service)), hash(k.Last(service))
	return func() *stored {
		s := &stored{
			pool: pool, service: service, about: about.Val(), names: names.Val(), offers: offers.Val(), ports: ports.Val(),
			labels: labels.Val(), last: last.Val(), free: scores(free), fresh: scores(fresh), room: scores(room), leases: scores(leases), resting: scores(resting),
		}
		for _, z := range line.Val() {
			s.line = append(s.line, z.Member.(string))
		}
		return s
	}
}

func scores(set *redis.ZSliceCmd) map[string]ms {
	all := map[string]ms{}
	for _, z := range set.Val() {
		all[z.Member.(string)] = ms(z.Score)
	}
	return all
}

func (s *stored) mustBeEmpty(to *state) {
	left := len(s.about) + len(s.labels) + len(s.last) + len(s.names) + len(s.offers) + len(s.ports) + len(s.line)
	for _, set := range []map[string]ms{s.free, s.fresh, s.room, s.leases, s.resting} {
		left += len(set)
	}
	if left > 0 {
		to.add("%s is not listed, and left %d fields", s.at(), left)
	}
}

func (s *stored) describe(to *state) {
	s.describeLine(to)
	s.describeFresh(to)
	names, held := map[string]string{}, map[string]bool{}
	for port, text := range s.ports {
		s.describeAllocation(to, port, s.labelled(port, record(text)), names, held)
	}
	for port, text := range s.offers {
		s.describeOffer(to, port, s.labelled(port, record(text)), names, held)
	}
	for port, entry := range s.labels {
		to.add("%s has the labels of nobody: %s", s.port(port), entry)
	}
	if !maps.Equal(names, s.names) {
		to.add("%s has the names %v, and they should be %v", s.at(), s.names, names)
	}
	for port := range s.leases {
		if s.ports[port] == "" {
			to.add("%s has a lease, and no allocation", s.port(port))
		}
	}
	for port, score := range s.free {
		if !held[port] {
			to.add("%s free from %d", s.port(port), score)
		}
	}
	s.describeResting(to)
}

// describeResting tells which ports rest. They must be nowhere else, and the service must say when the first is
// free, or an earlier time.
func (s *stored) describeResting(to *state) {
	cooldown, _ := strconv.ParseInt(s.about["cooldown"], 10, 64)
	first := ""
	for port, until := range s.resting {
		if _, free := s.free[port]; free || s.ports[port] != "" || s.offers[port] != "" {
			to.add("%s rests, and is somewhere else, too", s.port(port))
		}
		if first == "" || until < s.resting[first] {
			first = port
		}
		if until > to.now {
			to.add("%s rests until %d", s.port(port), until)
		} else {
			to.add("%s free from %d", s.port(port), until-cooldown)
		}
	}
	if says, err := strconv.ParseInt(s.about["rests"], 10, 64); first != "" && (err != nil || says > s.resting[first]) {
		to.add("%s says that its first port rests until %q, and it is %d", s.at(), s.about["rests"], s.resting[first])
	}
	if s.about["changing"] != "" {
		to.add("%s is left with a change of %q", s.at(), s.about["changing"])
	}
}

func (s *stored) describeLine(to *state) {
	if (s.about["waiting"] == "1") != (len(s.line) > 0) {
		to.add("%s has %d calls on the waitlist, and waiting is %q", s.at(), len(s.line), s.about["waiting"])
	}
	at := 0
	for _, ticket := range s.line {
		to.line[ticket] = true
		if kept := to.beats[s.pool+"/"+serverOf(ticket)]; kept > to.now {
			to.add("%s line %d: %s until %d", s.at(), at, ticket, kept)
			at++
		}
	}
}

// describeFresh tells which ports are fresh. room must have all runs of 2 and more, as what they are or longer.
func (s *stored) describeFresh(to *state) {
	late := false
	for end, first := range s.fresh {
		last, _ := strconv.ParseInt(end, 10, 64)
		for port := first; port <= last; port++ {
			to.fresh[s.port(fmt.Sprint(port))] = true
			to.add("%s fresh", s.port(fmt.Sprint(port)))
		}
		length, room := last-first+1, s.room[end]
		if length < 1 || s.fresh[fmt.Sprint(first-1)] > 0 {
			to.add("%s has the run %d-%d of fresh ports, which is none, or not the whole of one", s.at(), first, last)
		}
		if length > 1 && room < length {
			to.add("%s has %d fresh ports up to %s, and room says %d", s.at(), length, end, room)
		}
		late = late || length > 1 && room != length || length == 1 && room > 0
	}
	for end := range s.room {
		late = late || s.fresh[end] == 0
	}
	to.late[s.at()] = late
}

// describeAllocation tells what an entry of the allocations says; also one whose lease has run out must be whole, as long
// as it is there.
func (s *stored) describeAllocation(to *state, port string, r record, names map[string]string, held map[string]bool) {
	if r.ofBlock() {
		first, _ := strconv.Atoi(string(r))
		number, _ := strconv.Atoi(port)
		if of := record(s.ports[string(r)]); of.ofBlock() || number <= first || number >= first+of.count() {
			to.add("%s is said to be of the block at %s", s.port(port), string(r))
		}
		return
	}
	allocation, err := parseAllocation(s.service, r)
	if err != nil || strconv.Itoa(allocation.Port) != port {
		to.add("%s is allocated as %s", s.port(port), r)
		return
	}
	h := hold{name: allocation.Name, port: allocation.Port, count: allocation.Count, owner: allocation.Owner, labels: allocation.Labels,
		created: allocation.Created.UnixMilli(), fence: allocation.Fence}
	h.secret, _ = r.text(`"secret":"`)
	h.lease, _ = r.number(`"lease":`)
	if !allocation.Expires.IsZero() {
		h.expires = allocation.Expires.UnixMilli()
	}
	names[h.name] = port
	to.fences[h.fence] = true
	for number := h.port; number < h.port+h.count; number++ {
		each := strconv.Itoa(number)
		if score, is := s.free[each]; is != (h.expires > 0) || score != h.expires || s.leases[each] != h.expires ||
			(s.offers[each] == string(leased)) != is || s.offers[each] != "" && !is || number > h.port && s.ports[each] != port {
			to.add("%s is of %s: lease %d, free %d, offers %q, ports %q", s.port(each), r, s.leases[each], score, s.offers[each], s.ports[each])
		}
		if h.lives(to.now) {
			held[each] = true
			to.add("%s %v", s.port(each), &h)
		}
	}
}

func (s *stored) describeOffer(to *state, port string, r record, names map[string]string, held map[string]bool) {
	if r == leased {
		if s.ports[port] == "" {
			to.add("%s is leased to nobody", s.port(port))
		}
		return
	}
	offer, err := parseOffer(r)
	if err != nil || strconv.Itoa(offer.Port) != port || s.free[port] != offer.Expires.UnixMilli() || offer.Service != s.service {
		to.add("%s is offered as %s, and free from %d", s.port(port), r, s.free[port])
		return
	}
	h := hold{
		name: offer.Name, port: offer.Port, count: offer.Count, owner: offer.Owner, created: offer.Created.UnixMilli(), expires: offer.Expires.UnixMilli(),
		lease: offer.Lease.Milliseconds(), labels: offer.Labels,
	}
	h.secret, _ = r.text(`"secret":"`)
	names[h.name] = port
	for number := h.port; number < h.port+h.count && h.lives(to.now); number++ {
		each := strconv.Itoa(number)
		if s.free[each] != h.expires || s.ports[each] != "" || number > h.port && s.offers[each] != "" {
			to.add("%s is of %s: free %d, offers %q, ports %q", s.port(each), r, s.free[each], s.offers[each], s.ports[each])
		}
		held[each] = true
		to.add("%s %v", s.port(each), &h)
	}
}
