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

// The bounds of a page beside its limit: how many ports that were ever handed out it looks at, and how many bytes of labels it reads, or
// those of one more command. A page that reaches one has a cursor, and may be empty.
const (
	portsPerPage  = 10_000
	labelsPerPage = 1 << 20
)

// list walks the ports of a service that were ever handed out, from cursor upwards, and reads the record that each has in the hash: parse
// turns those that are meant into items, or reports that one is none. It stops after limit items or at a bound of a page, and returns
// the cursor of the rest, "" if there is none.
//
// The hash is never read whole: a page costs only what it looks at, however many ports are held, and other calls can run between
// its commands.
func list[T any](
	ctx context.Context, a *Allocator, pool, service string, hash func(keyspace.Pool, string) string, of Filter, cursor string, limit int,
	parse func(s Service, r record) (item T, ok bool, err error),
) (items []T, next string, err error) {
	f := checkService(pool, service)
	from := f.cursor(cursor)
	f.limit(limit)
	f.filter(of)
	if err := f.err(); err != nil {
		return nil, "", err
	}
	s, err := a.Service(ctx, pool, service)
	if err != nil {
		return nil, "", err
	}
	k := a.keys.Pool(pool)
	for looked, labelled := 0, 0; ; {
		ports, err := a.portsOf(ctx, k, s, of, from)
		if err != nil || len(ports) == 0 {
			return items, "", err
		}
		if looked += len(ports); looked > portsPerPage || labelled >= labelsPerPage {
			return items, strconv.Itoa(ports[0]), nil
		}
		records, size, err := a.recordsOf(ctx, k, service, hash(k, service), ports, of)
		if err != nil {
			return nil, "", err
		}
		labelled += size
		for i, record := range records {
			if record == "" || !of.matchesLabels(record) {
				continue
			}
			item, ok, err := parse(s, record)
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

// portsOf returns the next ports at which what is meant may be, from a port upwards: that of a name, or else as handedOut.
func (a *Allocator) portsOf(ctx context.Context, k keyspace.Pool, s Service, of Filter, from int) (ports []int, err error) {
	if of.Name == "" {
		all := s.allRanges()
		return a.handedOut(ctx, k.Fresh(s.Name), max(from, all[0].Start), all[len(all)-1].End)
	}
	found, err := a.executor.Fields(ctx, k.Names(s.Name), of.Name)
	if err != nil {
		return nil, translate(err)
	}
	text, has := found[0].(string)
	if port, err := strconv.Atoi(text); has && err == nil && port >= from {
		return []int{port}, nil
	}
	return nil, nil
}

// recordsOf returns the records that a hash has at ports, "" for those that are missing, or surely not meant: with their labels behind
// them, of which it also returns the size in bytes.
func (a *Allocator) recordsOf(ctx context.Context, k keyspace.Pool, service, hash string, ports []int, of Filter) (
	records []record, size int, err error,
) {
	found, err := a.records(ctx, hash, ports)
	if err != nil {
		return nil, 0, err
	}
	records = make([]record, len(found))
	for i, each := range found {
		if text, _ := each.(string); of.matchesRecord(record(text)) {
			records[i] = record(text)
		}
	}
	size, err = a.addLabels(ctx, k.Labels(service), ports, records)
	return records, size, err
}

// labelsPerCommand bounds how many labels one command of a list reads, so that other calls do not wait long behind it: some 128 KiB.
const labelsPerCommand = 64

// addLabels puts the labels of records at ports behind them, and returns their size in bytes. Records that have none cost nothing. A
// hold that ended since its record was read has none.
func (a *Allocator) addLabels(ctx context.Context, key string, ports []int, records []record) (size int, err error) {
	var which, at []int
	for i, r := range records {
		if r.hasLabels() {
			which, at = append(which, i), append(at, ports[i])
		}
	}
	for first := 0; first < len(at); first += labelsPerCommand {
		last := min(first+labelsPerCommand, len(at))
		entries, err := a.records(ctx, key, at[first:last])
		if err != nil {
			return 0, err
		}
		for i, each := range entries {
			entry, _ := each.(string)
			r := &records[which[first+i]]
			*r += record(r.labelsIn(entry))
			size += len(entry)
		}
	}
	return size, nil
}

func (a *Allocator) records(ctx context.Context, key string, ports []int) ([]any, error) {
	fields := make([]string, len(ports))
	for i, port := range ports {
		fields[i] = strconv.Itoa(port)
	}
	found, err := a.executor.Fields(ctx, key, fields...)
	return found, translate(err)
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
