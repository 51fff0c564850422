// Package keyspace names every key in Redis, and gives each script the keys that its header lists.
package keyspace

import (
	"slices"

	"portmaster/allocator/executor"
	"portmaster/lua"
)

// Prefix is the first part of every key. Its methods name the keys that belong to no pool.
type Prefix string

// Pools is a SET: the pools that have a service.
func (p Prefix) Pools() string { return string(p) + ":pools" }

// Figures is a STRING with a TTL: the last reading of the figures of all services.
func (p Prefix) Figures() string { return string(p) + ":figures" }

// Epoch is a HASH: which state this is. It tells a server that the state it knew is gone, is older, or has another form:
// schema, id, state ('kept' or 'lost'), since (Unix ms), missed (the ids of the epochs that it replaced), pulses (the last times, Unix
// ms, at which a server looked at it, each a second or more after the one before), fence (the highest that a server reported of a lost
// state), and, if it was found to be older than what servers knew, behind (ms) and unknown (how many allocations are not in it).
func (p Prefix) Epoch() string { return string(p) + ":epoch" }

// Deployment is a STRING: where servers of schema 0 had their epoch. It locks them out.
func (p Prefix) Deployment() string { return string(p) + ":deployment" }

// Turns is the channel on which servers hear which calls on a waitlist are next.
func (p Prefix) Turns() string { return string(p) + ":turns" }

// Pool returns the keys of a pool.
func (p Prefix) Pool(name string) Pool { return Pool(string(p) + ":{" + name + "}:") }

// Pool is the first part of every key of a pool. The braces in it are a Redis Cluster's hash tag: a pool is one slot, so a script
// finds all of its keys on one node. The names of pools and services hold no brace.
type Pool string

// Services is a ZSET: service name, scored by the first of its ports.
func (p Pool) Services() string { return string(p) + "services" }

// Ends is a ZSET: service name, scored by the end of its range. A service with several ranges is not in it.
func (p Pool) Ends() string { return string(p) + "ends" }

// Ranges is a ZSET: each range of a service that has several, as "SERVICE FIRST-LAST", scored by the first.
func (p Pool) Ranges() string { return string(p) + "ranges" }

// Fence is a STRING: the last fence number given in the pool, the time in microseconds or a little more.
func (p Pool) Fence() string { return string(p) + "fence" }

// Removed is a STRING with a TTL of 31 days: the time (Unix ms) at which a service of the pool was removed last.
func (p Pool) Removed() string { return string(p) + "removed" }

// Service is a HASH: description, start, end, ranges if it has several, cooldown (ms), created (Unix ms), waiting while there is a waitlist, no_rows while
// a call on it waits for rows of ports that do not exist, rests while there are resting ports (a time at which none of them is free
// yet), and changing while a change of the range is under way.
func (p Pool) Service(service string) string { return string(p) + "service:" + service }

// Free is a ZSET: port, scored by the time (Unix ms) from which it cools down.
func (p Pool) Free(service string) string { return string(p) + "free:" + service }

// Fresh is a ZSET: the last port of a run of ports that were never handed out, scored by the first.
func (p Pool) Fresh(service string) string { return string(p) + "fresh:" + service }

// RunLengths is a ZSET: the last port of a run of 2 or more fresh ports, scored by the length of the run. Scripts look for blocks
// here, and correct it as they do: Fresh has the current length.
func (p Pool) RunLengths(service string) string { return string(p) + "room:" + service }

// Leases is a ZSET: port, scored by the time (Unix ms) when its lease ends. A lease that ran out stays until its port or its name
// is handed out again.
func (p Pool) Leases(service string) string { return string(p) + "leases:" + service }

// Resting is a ZSET: a port that is kept out until a time of its own, scored by it (Unix ms): it was found in use, or
// was cooling down when its service was redefined. Until then it is in no other set of the service.
func (p Pool) Resting(service string) string { return string(p) + "resting:" + service }

// Rest is a HASH: port -> the time (Unix ms) until which it rests, or rested, whether it is in the range of a service or not.
// The key expires 31 days after the last port began to rest.
func (p Pool) Rest() string { return string(p) + "rest" }

// Waitlist is a ZSET: the ticket of a call that waits for a port, scored by its position.
func (p Pool) Waitlist(service string) string { return string(p) + "line:" + service }

// Waitlists is a ZSET: a service on whose waitlist a call waits, scored by the time (Unix ms) from which it is worth a look.
func (p Pool) Waitlists() string { return string(p) + "lines" }

// Heartbeats is a ZSET: a server that has calls on waitlists of the pool, scored by the time (Unix ms) when these calls lose their
// positions unless the server is heard of.
func (p Pool) Heartbeats() string { return string(p) + "beats" }

// Copied is a STRING with a TTL: a number that a server raises with each batch. A replica that has the number has all that was
// written before it.
func (p Pool) Copied(server string) string { return string(p) + "copied:" + server }

// Names is a HASH: instance name -> port, offered or allocated.
func (p Pool) Names(service string) string { return string(p) + "names:" + service }

// Offers is a HASH: port -> its open offer, as JSON, or "leased" if its allocation has a lease. An offer that ran out stays until its
// port or its name is offered again.
func (p Pool) Offers(service string) string { return string(p) + "offers:" + service }

// Ports is a HASH: port -> its allocation, as JSON. The first port of a block has the record; the others have the first one's number.
func (p Pool) Ports(service string) string { return string(p) + "ports:" + service }

// Labels is a HASH: first port of a hold that has labels -> the labels and the secret of the hold, as JSON. An entry of a hold that ended
// stays as long as its record.
func (p Pool) Labels(service string) string { return string(p) + "labels:" + service }

// Last is a HASH of a service that picks ports by name: port -> who had it last, as parts/ports/by_name.lua says.
func (p Pool) Last(service string) string { return string(p) + "last:" + service }

// Events is a STREAM: the history of a service, at most Options.History events, written as parts/history.lua says. A removed service's
// has a TTL of 31 days.
func (p Pool) Events(service string) string { return string(p) + "events:" + service }

// Offer is a STRING with a TTL: the offer of a secret, as JSON.
func (p Pool) Offer(secret string) string { return string(p) + "offer:" + secret }

// Owned is a ZSET with a TTL: each port that an owner holds, open offers included, scored by the end of the hold (Unix ms), or by
// 9007199254740991 if it has none. Ports whose time has passed may still be in it.
func (p Pool) Owned(owner string) string { return string(p) + "owner:" + owner }

// Call returns the call of a script with the keys that its header lists before those of each request. service and secret may be ""
// if no key of the script contains them.
func (p Pool) Call(script *lua.Script, service, secret string, args ...any) executor.Call {
	wanted := keysOf[script]
	names := make([]string, 0, len(wanted.always)+len(wanted.each))
	return executor.Call{Slot: string(p), Script: script, Keys: p.add(names, wanted.always, service, secret), Args: args}
}

// AddEach adds the keys to a call that its script has of each request or service.
func (p Pool) AddEach(c *executor.Call, service, secret string) {
	c.Keys = p.add(c.Keys, keysOf[c.Script].each, service, secret)
}

// AddOwner adds what comes last in a call of an owner: the key, and as arguments the owner and those given. An owner of "" adds nothing.
// The call that it was stays as it was.
func (p Pool) AddOwner(c *executor.Call, owner string, args ...any) {
	if owner != "" {
		c.Keys = append(slices.Clip(c.Keys), p.Owned(owner)) // the caller may make the call again for another owner
		c.Args = append(append(slices.Clip(c.Args), owner), args...)
		c.LastArgs = 1 + len(args)
	}
}

func (p Pool) add(to []string, wanted []keyOf, service, secret string) []string {
	for _, key := range wanted {
		to = append(to, key(p, service, secret))
	}
	return to
}

// Call returns the call of a script whose only key belongs to no pool.
func (p Prefix) Call(script *lua.Script, args ...any) executor.Call {
	key := ofNoPool[script.Keys[0]](p)
	return executor.Call{Slot: key, Script: script, Keys: []string{key}, Args: args}
}

// keyOf builds a key of a pool; most need the service or the secret alone, or neither.
type keyOf func(p Pool, service, secret string) string

// ofAPool has the keys of a pool by their names in the headers of the scripts.
var ofAPool = map[string]keyOf{
	"service":     ofService(Pool.Service),
	"free":        ofService(Pool.Free),
	"fresh":       ofService(Pool.Fresh),
	"run_lengths": ofService(Pool.RunLengths),
	"names":       ofService(Pool.Names),
	"offers":      ofService(Pool.Offers),
	"ports":       ofService(Pool.Ports),
	"leases":      ofService(Pool.Leases),
	"resting":     ofService(Pool.Resting),
	"waitlist":    ofService(Pool.Waitlist),
	"events":      ofService(Pool.Events),
	"labels":      ofService(Pool.Labels),
	"last":        ofService(Pool.Last),
	"services":    ofPool(Pool.Services),
	"ends":        ofPool(Pool.Ends),
	"ranges":      ofPool(Pool.Ranges),
	"rest":        ofPool(Pool.Rest),
	"heartbeats":  ofPool(Pool.Heartbeats),
	"waitlists":   ofPool(Pool.Waitlists),
	"fence":       ofPool(Pool.Fence),
	"removed":     ofPool(Pool.Removed),
	"offer":       func(p Pool, _, secret string) string { return p.Offer(secret) },
	"owned":       func(p Pool, _, owner string) string { return p.Owned(owner) }, // in place of a secret

	// Of schema 0, from which convert.lua converts.
	"old_quarantine": func(p Pool, service, _ string) string { return string(p) + "quarantine:" + service },
	"old_beats":      func(p Pool, service, _ string) string { return string(p) + "beats:" + service },
}

// ofNoPool has the keys that belong to no pool.
var ofNoPool = map[string]func(Prefix) string{"epoch": Prefix.Epoch, "pools": Prefix.Pools}

func ofService(key func(Pool, string) string) keyOf {
	return func(p Pool, service, _ string) string { return key(p, service) }
}

func ofPool(key func(Pool) string) keyOf {
	return func(p Pool, _, _ string) string { return key(p) }
}

// scriptKeys are the keys of a script, in the order of its header, and those that it has of each request or service.
type scriptKeys struct{ always, each []keyOf }

// keysOf has the keys of every script that works on a pool, so that no call looks up names.
var keysOf = func() map[*lua.Script]scriptKeys {
	find := func(names []string) (found []keyOf) {
		for _, name := range names {
			key, isKnown := ofAPool[name]
			if !isKnown && ofNoPool[name] == nil && name != "copied" { // the executor calls extend_trail.lua, with Pool.Copied
				panic("a script has a key that nobody knows: " + name)
			}
			found = append(found, key)
		}
		return found
	}
	all := map[*lua.Script]scriptKeys{}
	for _, s := range lua.All() {
		all[s] = scriptKeys{find(s.Keys), find(s.Each)}
	}
	return all
}()
