package allocator

import (
	"context"
	"strconv"

	"portmaster/allocator/keyspace"
)

// MaxPage is the longest page of a list.
const MaxPage = 1000

// portsPerCommand bounds how many ports one command of a list looks at, so that other calls do not wait long behind it.
const portsPerCommand = 250

// list walks the ports of a service that were ever handed out, from cursor upwards, and reads the record that each has in
// the hash: parse turns it into an item, or reports that it is none. If owner is not "", it passes over what others own. It stops after
// limit items, and returns the cursor of the rest, "" if there is none.
//
// The hash is never read whole: a page costs only what it looks at, however many ports are held, and other calls can run between
// its commands.
func list[T any](
	ctx context.Context, a *Allocator, pool, service string, hash func(keyspace.Pool, string) string, owner, cursor string, limit int,
	parse func(s Service, r record) (item T, ok bool, err error),
) (items []T, next string, err error) {
	f := checkService(pool, service)
	from := f.cursor(cursor)
	f.limit(limit)
	f.owner("owner", owner)
	if err := f.err(); err != nil {
		return nil, "", err
	}
	s, err := a.Service(ctx, pool, service)
	if err != nil {
		return nil, "", err
	}
	key := hash(a.keys.Pool(pool), service)
	for {
		ports, err := a.handedOut(ctx, a.keys.Pool(pool).Fresh(service), max(from, s.Start), s.End)
		if err != nil || len(ports) == 0 {
			return items, "", err
		}
		records, err := a.records(ctx, key, ports)
		if err != nil {
			return nil, "", err
		}
		for i, found := range records {
			text, held := found.(string)
			if !held || owner != "" && record(text).owner() != owner {
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
	fields := make([]string, len(ports))
	for i, port := range ports {
		fields[i] = strconv.Itoa(port)
	}
	records, err := a.executor.Fields(ctx, key, fields...)
	return records, translate(err)
}

// runsPerCommand bounds how many runs of fresh ports one command of a list looks at.
const runsPerCommand = 64

// handedOut returns the ports within from-end that were ever handed out: the lowest of them, at most portsPerCommand.
func (a *Allocator) handedOut(ctx context.Context, fresh string, from, end int) (ports []int, err error) {
	for from <= end && len(ports) == 0 {
		runs, err := a.freshRuns(ctx, fresh, from)
		if err != nil {
			return nil, err
		}
		seen := end // up to this port it is known which ports are fresh
		if len(runs) >= runsPerCommand {
			seen = runs[len(runs)-1].to
		}
		for _, run := range append(runs, span{end + 1, end + 1}) {
			for ; from < run.from && from <= seen && len(ports) < portsPerCommand; from++ {
				ports = append(ports, from)
			}
			if len(ports) == portsPerCommand {
				return ports, nil
			}
			from = max(from, min(run.to, seen)+1)
		}
	}
	return ports, nil
}

// span is a run of ports, both ends included.
type span struct{ from, to int }

// freshRuns returns runs of fresh ports in ascending order, beginning with the run that contains port or else the next one: at most
// runsPerCommand + 1.
func (a *Allocator) freshRuns(ctx context.Context, fresh string, port int) (runs []span, err error) {
	around, err := a.executor.Around(ctx, fresh, port, runsPerCommand)
	if err != nil {
		return nil, translate(err)
	}
	for _, run := range around {
		to, err := strconv.Atoi(run.Member)
		if err != nil {
			return nil, malformed("the fresh ports", fresh)
		}
		if to >= port {
			runs = append(runs, span{int(run.Score), to})
		}
	}
	return runs, nil
}
