package allocator

import (
	"context"
	"strconv"
)

// MaxPage is the longest page of a list.
const MaxPage = 1000

// portsPerCommand bounds how many ports one command of a list looks at, so that no other call waits long behind it.
const portsPerCommand = 250

// list walks the ports of a service that were ever handed out, from cursor upwards, and reads the record that each has in
// the hash: parse turns it into an item, or says that it is none. It stops after limit items, and returns the cursor of
// the rest, "" where there is none.
//
// The hash itself is never read whole: a page costs what it looks at, however many ports are held, and other calls come
// in between its commands.
func list[T any](ctx context.Context, a *Allocator, pool, service string, hash func(keys, string) string, cursor string, limit int, parse func(s Service, r record) (item T, ok bool, err error)) (items []T, next string, err error) {
	var f faults
	f.name("pool", pool)
	f.name("service", service)
	from := f.cursor(cursor)
	f.limit(limit)
	if err := f.err(); err != nil {
		return nil, "", err
	}
	s, err := a.Service(ctx, pool, service)
	if err != nil {
		return nil, "", err
	}
	key := hash(a.keys(pool), service)
	for {
		ports := s.handedOut(from, portsPerCommand)
		if len(ports) == 0 {
			return items, "", nil
		}
		records, err := a.records(ctx, key, ports)
		if err != nil {
			return nil, "", err
		}
		for i, found := range records {
			text, held := found.(string)
			if !held {
				continue
			}
			item, ok, err := parse(s, record(text))
			if err != nil {
				return nil, "", err
			}
			if ok && len(items) == limit {
				return items, strconv.Itoa(ports[i]), nil
			}
			if ok {
				items = append(items, item)
			}
		}
		from = ports[len(ports)-1] + 1
	}
}

func (a *Allocator) records(ctx context.Context, key string, ports []int) ([]any, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	fields := make([]string, len(ports))
	for i, port := range ports {
		fields[i] = strconv.Itoa(port)
	}
	records, err := a.redis.HMGet(ctx, key, fields...).Result()
	if err != nil {
		return nil, nothingDone(classify(err))
	}
	return records, nil
}

// handedOut returns the ports from a given one upwards that were ever handed out, n of them at most.
func (s Service) handedOut(from, n int) []int {
	var ports []int
	next := max(from, s.Start)
	for _, fresh := range append(s.fresh, span{s.End + 1, s.End + 1}) {
		for ; next < fresh.from; next++ {
			if len(ports) == n {
				return ports
			}
			ports = append(ports, next)
		}
		next = max(next, fresh.to+1)
	}
	return ports
}

// cursor reads the cursor of a list by number: where to go on.
func (f *faults) cursor(cursor string) int {
	if cursor == "" {
		return 0
	}
	n, err := strconv.Atoi(cursor)
	if err != nil || n < 0 {
		f.add("cursor", "is not one that a list gave")
	}
	return n
}

func (f *faults) limit(limit int) {
	if limit < 1 || limit > MaxPage {
		f.add("limit", "must lie within 1-%d", MaxPage)
	}
}
