package allocator

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"portmaster/lua"
)

// FreePorts are the ports of a service that go out next, unless others come free meanwhile.
type FreePorts struct {
	Service string
	Time    time.Time // when they were read, by Redis's clock
	Ports   []int     // in the order in which requests for any port get them
}

// FreePorts reads which ports of a service would go out next: limit of them at most, 1 to MaxPage. It reserves none. First come those
// that were given back, that free for longest first, and then those that were never handed out, lowest first. It returns ErrInvalid or
// ErrServiceNotFound.
func (a *Allocator) FreePorts(ctx context.Context, pool, service string, limit int) (FreePorts, error) {
	f := checkService(pool, service)
	f.limit(limit)
	if err := f.err(); err != nil {
		return FreePorts{}, err
	}
	answer, err := a.readSettled(ctx, pool, service, a.keys.Pool(pool).Call(lua.ReadFree, service, "", service, limit))
	if err != nil {
		return FreePorts{}, err
	}
	return parseFree(service, answer, limit)
}

// freedPort is a free port that was given back, and its score.
type freedPort struct {
	text  string
	score int64
}

// parseFree reads the answer of read_free.lua.
func parseFree(service string, answer any, limit int) (FreePorts, error) {
	parts, _ := answer.([]any)
	if len(parts) != 5 {
		return FreePorts{}, malformed("the free ports of", service)
	}
	now, err1 := toInt(parts[0])
	cooldown, err2 := toInt(parts[1])
	back, ok1 := scored(parts[2], 0)
	rested, ok2 := scored(parts[3], cooldown)
	runs, ok3 := scored(parts[4], 0)
	if err := cmp.Or(err1, err2); err != nil || !ok1 || !ok2 || !ok3 {
		return FreePorts{}, malformed("the free ports of", service)
	}
	free := FreePorts{Service: service, Time: time.UnixMilli(now).UTC()}
	back = append(back, rested...)
	slices.SortFunc(back, func(a, b freedPort) int { // the order of a ZSET
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.text, b.text))
	})
	for _, each := range back[:min(len(back), limit)] {
		port, err := strconv.Atoi(each.text)
		if err != nil {
			return FreePorts{}, malformed("the free ports of", service)
		}
		free.Ports = append(free.Ports, port)
	}
	for _, run := range runs {
		last, err := strconv.Atoi(run.text)
		if err != nil {
			return FreePorts{}, malformed("the free ports of", service)
		}
		for port := int(run.score); port <= last && len(free.Ports) < limit; port++ {
			free.Ports = append(free.Ports, port)
		}
	}
	return free, nil
}

// scored reads the members of a ZSET with their scores, each lowered by some.
func scored(list any, by int64) (all []freedPort, ok bool) {
	items, ok := list.([]any)
	if !ok || len(items)%2 != 0 {
		return nil, false
	}
	for i := 0; i < len(items); i += 2 {
		member, isText := items[i].(string)
		score, err := toInt(items[i+1])
		if !isText || err != nil {
			return nil, false
		}
		all = append(all, freedPort{member, score - by})
	}
	return all, true
}
