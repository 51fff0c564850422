package keyspace

import (
	"errors"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// ListServices returns the call that counts the services of a pool, and lists those that start at a port or later, limit of them at
// most.
func (p Pool) ListServices(start, limit int) executor.Call {
	return p.Call(lua.ListServices, "", "", start, limit)
}

// Listed is the answer to a call of ListServices.
type Listed struct {
	Count int      // how many services the pool has
	Names []string // some of them, by their ranges
	Next  string   // the port at which the rest starts; "" if there is none
}

// ParseListed reads the answer to a call of ListServices.
func ParseListed(answer any) (found Listed, err error) {
	parts, _ := answer.([]any)
	if len(parts) != 3 {
		return found, errors.New("the list of services in Redis is malformed")
	}
	count, _ := parts[0].(int64)
	names, _ := parts[1].([]any)
	for _, each := range names {
		name, _ := each.(string)
		found.Names = append(found.Names, name)
	}
	found.Count = int(count)
	found.Next, _ = parts[2].(string)
	return found, nil
}
