package allocator

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// schema is the number of the form in which this program keeps the state. Each change of the form takes the next number, and
// brings with it a script that converts one service (see convert.lua) and a test with its predecessor.
//
//	0  that of the servers before there were numbers: their epoch is at deploymentKey
//	1  ports that were found in use are in resting and rest, tickets tell rows, heartbeats are those of a pool
const schema = "1"

// lockedID begins what servers of schema 0 find at their epoch: another state than theirs, so they hand out nothing.
const lockedID = `{"id":"schema-` + schema + `"`

func locked(since time.Time) string {
	return fmt.Sprintf(`%s,"since":%d,"state":"lost"}`, lockedID, since.UnixMilli())
}

// oldServersLook is within what time all servers of schema 0 have noticed that.
const oldServersLook = 2500 * time.Millisecond

// otherSchema is the error of every call while the state has another form.
func otherSchema(found string) *Error {
	n, _ := strconv.Atoi(found)
	if mine, _ := strconv.Atoi(schema); n < mine {
		return unavailable("the state in Redis has schema "+found+", which this server does not convert: it works with "+schema, nil)
	}
	return unavailable("the state in Redis has schema "+found+", which a newer server wrote: this one works with "+schema, nil)
}

// begin begins an epoch in a Redis that has none. If servers of schema 0 have worked there it locks them out and converts the state
// first.
func (a *Allocator) begin(ctx context.Context) (epochSeen, error) {
	ctx = context.WithoutCancel(ctx)
	epoch, err := a.executor.Get(ctx, a.keys.Deployment())
	if err != nil {
		return epochSeen{}, fromExecutor(err)
	}
	now, err := a.executor.Time(ctx)
	if err != nil {
		return epochSeen{}, fromExecutor(err)
	}
	state, since := "kept", now
	if strings.HasPrefix(epoch, lockedID) { // by another server
		since, _ = record(epoch).time(`"since":`)
	} else if err := a.executor.Set(ctx, a.keys.Deployment(), locked(now), 0); err != nil {
		return epochSeen{}, fromExecutor(err)
	} else if strings.Contains(epoch, `"state":"lost"`) {
		state = "lost"
	}
	if epoch != "" {
		a.epoch.converting.Store(true)
		defer a.epoch.converting.Store(false)
		time.Sleep(min(oldServersLook, oldServersLook-now.Sub(since)))
		if err := a.convert(ctx); err != nil {
			return epochSeen{}, err
		}
	}
	return a.look(ctx, state, 0, 0)
}

// convert brings all services to schema 1.
func (a *Allocator) convert(ctx context.Context) error {
	pools, err := a.listedPools(ctx)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		k := a.keys.Pool(pool)
		for from := 0; ; {
			answer, err := a.executor.Read(ctx, k.ListServices(from, MaxPage))
			if err != nil {
				return fromExecutor(err)
			}
			listed, err := keyspace.ParseListed(answer)
			if err != nil {
				return err
			}
			for _, service := range listed.Names {
				if err := a.convertService(ctx, k, service); err != nil {
					return fmt.Errorf("%s in pool %s: %w", service, pool, err)
				}
			}
			if listed.Next == "" {
				break
			}
			if from, err = strconv.Atoi(listed.Next); err != nil {
				return malformed("the list of", "services")
			}
		}
	}
	return nil
}

func (a *Allocator) convertService(ctx context.Context, k keyspace.Pool, service string) error {
	for range maxSteps {
		answer, err := a.executor.Write(ctx, k.Call(lua.Convert, service, ""))
		if err != nil || answer == int64(1) {
			return fromExecutor(err)
		}
	}
	return unavailable("there is more to convert than a service can have", nil)
}
