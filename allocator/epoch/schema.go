package epoch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/lua"
)

// schema is the number of the form in which this program keeps the state. Each change of the form takes the next number, and
// brings a script that converts one service (see convert.lua) and a test with its predecessor.
//
//	0  that of the servers before there were numbers: their epoch is at Prefix.Deployment
//	1  ports that were found in use are in resting and rest, tickets name rows, heartbeats are those of a pool
const schema = "1"

// lockedID begins the record that servers of schema 0 find in place of their epoch: another state, so they hand out nothing.
const lockedID = `{"id":"schema-` + schema + `"`

const lockedSince = `,"since":`

func locked(since time.Time) string {
	return fmt.Sprintf(`%s%s%d,"state":"lost"}`, lockedID, lockedSince, since.UnixMilli())
}

// sinceOf reads when the state was locked.
func sinceOf(locked string) time.Time {
	_, rest, _ := strings.Cut(locked, lockedSince)
	ms, _, _ := strings.Cut(rest, ",")
	return time.UnixMilli(msOf(ms).Milliseconds())
}

// oldServersLook is the time within which all servers of schema 0 have noticed that they are locked out.
const oldServersLook = 2500 * time.Millisecond

// otherSchema is the error of every call while the state has another form.
func otherSchema(found string) *Error {
	n, _ := strconv.Atoi(found)
	if mine, _ := strconv.Atoi(schema); n < mine {
		return &Error{"the state in Redis has schema " + found + ", which this server does not convert: it works with " + schema}
	}
	return &Error{"the state in Redis has schema " + found + ", which a newer server wrote: this one works with " + schema}
}

// begin begins an epoch in a Redis that has none. If servers of schema 0 have worked there, it locks them out and converts the state
// first. A conversion that fails goes on the next time, so nothing is in doubt.
func (e *Epoch) begin(ctx context.Context) (seen, error) {
	found, err := e.convertAndLook(context.WithoutCancel(ctx))
	if failed, ok := errors.AsType[*executor.Error](err); ok && failed.Outcome == executor.Unknown {
		return found, &executor.Error{Outcome: executor.NotDone, Detail: "Redis did not answer", Cause: failed.Cause}
	}
	return found, err
}

func (e *Epoch) convertAndLook(ctx context.Context) (seen, error) {
	old, err := e.executor.Get(ctx, e.keys.Deployment())
	if err != nil {
		return seen{}, err
	}
	now, err := e.executor.Time(ctx)
	if err != nil {
		return seen{}, err
	}
	state, since := "kept", now
	if strings.HasPrefix(old, lockedID) { // by another server
		since = sinceOf(old)
	} else if err := e.executor.Set(ctx, e.keys.Deployment(), locked(now), 0); err != nil {
		return seen{}, err
	} else if strings.Contains(old, `"state":"lost"`) {
		state = "lost"
	}
	if old != "" {
		e.converting.Store(true)
		defer e.converting.Store(false)
		time.Sleep(min(oldServersLook, oldServersLook-now.Sub(since)))
		if err := e.convert(ctx); err != nil {
			return seen{}, err
		}
	}
	return e.look(ctx, state, 0, 0)
}

// convert brings all services to schema 1.
func (e *Epoch) convert(ctx context.Context) error {
	pools, err := e.executor.Members(ctx, e.keys.Pools())
	if err != nil {
		return err
	}
	for _, name := range pools {
		pool := e.keys.Pool(name)
		services, err := e.serviceNames(ctx, pool)
		if err != nil {
			return err
		}
		for _, service := range services {
			if err := e.convertService(ctx, pool, service); err != nil {
				return fmt.Errorf("%s in pool %s: %w", service, name, err)
			}
		}
	}
	return nil
}

func (e *Epoch) convertService(ctx context.Context, pool keyspace.Pool, service string) error {
	for range maxSteps {
		answer, err := e.executor.Write(ctx, pool.Call(lua.Convert, service, ""))
		if err != nil || answer == int64(1) {
			return err
		}
	}
	return &Error{"there is more to convert than a service can have"}
}

// servicesPerList is how many services one script lists.
const servicesPerList = 500

// serviceNames lists the services of a pool.
func (e *Epoch) serviceNames(ctx context.Context, pool keyspace.Pool) (names []string, err error) {
	for start := 0; ; {
		result := e.executor.RunAll(ctx, []executor.Call{pool.ListServices(start, servicesPerList)}, 1)[0]
		if result.Err != nil {
			return names, result.Err
		}
		listed, err := keyspace.ParseListed(result.Answer)
		if err != nil {
			return names, err
		}
		names = append(names, listed.Names...)
		if start, err = strconv.Atoi(listed.Next); err != nil {
			return names, nil // there is no rest
		}
	}
}
