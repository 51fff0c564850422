package allocator

import "portmaster/lua"

// DefaultPool is the pool of a call that names none.
const DefaultPool = "default"

// keys names every key of a pool. The braces are a Redis Cluster's hash tag: a pool is one slot, so that a script finds
// all of its keys on one node. Names hold no brace (see validate.go).
type keys string

func (a *Allocator) keys(pool string) keys { return keys(a.opts.KeyPrefix + ":{" + pool + "}:") }

// pools is the SET of the pools that have a service; see list in pool.go.
func (a *Allocator) poolsKey() string { return a.opts.KeyPrefix + ":pools" }

// figuresKey is a STRING with a TTL: the last reading of all services; see figures.go.
func (a *Allocator) figuresKey() string { return a.opts.KeyPrefix + ":figures" }

// epochKey is a HASH: which state this is, by which a server notices that the one it knew is gone, is older, or has another form:
// schema, id, state ('kept' or 'lost'), since (Unix ms), missed (the ids of epochs in whose place it is), pulses (the times, Unix
// ms, at which it was looked at last, each a second later or more), fence (the highest that a server reported of one that is lost),
// and, if it was found to be older than what servers knew, behind (ms) and unknown (how many allocations are not in it).
func (a *Allocator) epochKey() string { return a.opts.KeyPrefix + ":epoch" }

// deploymentKey is a STRING: where servers of schema 0 had their epoch. It locks them out.
func (a *Allocator) deploymentKey() string { return a.opts.KeyPrefix + ":deployment" }

// services is a ZSET: service name, scored by the start of its range.
func (k keys) services() string { return string(k) + "services" }

// ends is a ZSET: service name, scored by the end of its range.
func (k keys) ends() string { return string(k) + "ends" }

// fence is a STRING: the last fence number given in the pool, the time in microseconds or a little more.
func (k keys) fence() string { return string(k) + "fence" }

// service is a HASH: description, start, end, cooldown (ms), created (Unix ms), waiting while there is a line, no_rows while
// somebody in line waits for rows that there are not, rests while
// there are resting ports (a time at which none of them is free yet), and changing while a change of the range is under way.
func (k keys) service(service string) string { return string(k) + "service:" + service }

// turns is the channel on which the servers hear whose turn it is in a line.
func (a *Allocator) turns() string { return a.opts.KeyPrefix + ":turns" }

// free is a ZSET: port, scored by the time (Unix ms) from which it cools down.
func (k keys) free(service string) string { return string(k) + "free:" + service }

// fresh is a ZSET: the last port of a run of ports that were never handed out, scored by the first.
func (k keys) fresh(service string) string { return string(k) + "fresh:" + service }

// room is a ZSET: the last port of a run of fresh ports, scored by how long it is, for those of 2 and more. It is where
// blocks look, and put right when they do: fresh says how long a run is by now.
func (k keys) room(service string) string { return string(k) + "room:" + service }

// leases is a ZSET: port, scored by the time (Unix ms) when its lease ends. One that ran out stays until its port is
// handed out again, or its name.
func (k keys) leases(service string) string { return string(k) + "leases:" + service }

// resting is a ZSET: a port that is kept out until a time of its own, scored by it (Unix ms): it was rejected as in use, or
// cooled down when its service was redefined. It is in no other set of the service until then.
func (k keys) resting(service string) string { return string(k) + "resting:" + service }

// rest is a HASH: port -> the time (Unix ms) until which it rests, of all of the pool's that do, or did, whether they are in
// the range of a service or not. It ends 31 days after the last of them began to rest.
func (k keys) rest() string { return string(k) + "rest" }

// line is a ZSET: the ticket of a call that waits for a port, scored by its place in the line.
func (k keys) line(service string) string { return string(k) + "line:" + service }

// copied is a STRING with a TTL: a number that a server raises with each batch, so that replicas can be waited for that have it, and
// so all that was written before.
func (k keys) copied(server string) string { return string(k) + "copied:" + server }

// beats is a ZSET: a server with calls in lines of the pool, scored by the time (Unix ms) when these lose their places unless
// it is heard of.
func (k keys) beats() string { return string(k) + "beats" }

// lines is a ZSET: a service in whose line somebody waits, scored by the time (Unix ms) from which it is worth a look.
func (k keys) lines() string { return string(k) + "lines" }

// names is a HASH: instance name -> port, offered or allocated.
func (k keys) names(service string) string { return string(k) + "names:" + service }

// offers is a HASH: port -> its open offer, as JSON, or "leased" where its allocation is. One that ran
// out stays until its port or its name is offered again.
func (k keys) offers(service string) string { return string(k) + "offers:" + service }

// ports is a HASH: port -> its allocation, as JSON; of a block the first port has it, and the others have its number.
func (k keys) ports(service string) string { return string(k) + "ports:" + service }

// offer is a STRING with a TTL: the offer of a secret, as JSON.
func (k keys) offer(secret string) string { return string(k) + "offer:" + secret }

// keyOf builds a key of a pool; most take the service or the secret alone, or neither.
type keyOf func(k keys, service, secret string) string

// named has what the headers of the scripts call the keys.
var named = map[string]keyOf{
	"service":     ofService(keys.service),
	"free":        ofService(keys.free),
	"fresh":       ofService(keys.fresh),
	"run_lengths": ofService(keys.room),
	"names":       ofService(keys.names),
	"offers":      ofService(keys.offers),
	"ports":       ofService(keys.ports),
	"leases":      ofService(keys.leases),
	"resting":     ofService(keys.resting),
	"waitlist":    ofService(keys.line),
	"services":    ofPool(keys.services),
	"ends":        ofPool(keys.ends),
	"rest":        ofPool(keys.rest),
	"heartbeats":  ofPool(keys.beats),
	"waitlists":   ofPool(keys.lines),
	"fence":       ofPool(keys.fence),
	"offer":       func(k keys, _, secret string) string { return k.offer(secret) },

	// Of schema 0, from which convert.lua converts.
	"old_quarantine": func(k keys, service, _ string) string { return string(k) + "quarantine:" + service },
	"old_beats":      func(k keys, service, _ string) string { return string(k) + "beats:" + service },

	// These are of no pool, or of a server: the only key of their scripts, which the calls name.
	"epoch": nil, "pools": nil, "copied": nil,
}

func ofService(key func(keys, string) string) keyOf {
	return func(k keys, service, _ string) string { return key(k, service) }
}

func ofPool(key func(keys) string) keyOf {
	return func(k keys, _, _ string) string { return key(k) }
}

// scriptKeys are the keys of a script, in the order of its header, and those that it has of each request or service.
type scriptKeys struct{ always, each []keyOf }

// keysOf has the keys of every script, so that no call looks up names.
var keysOf = func() map[*lua.Script]scriptKeys {
	find := func(names []string) (found []keyOf) {
		for _, name := range names {
			key, known := named[name]
			if !known {
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

// of returns the keys of a script, with room for those of one request.
func (k keys) of(script *lua.Script, service, secret string) []string {
	wanted := keysOf[script]
	return k.add(make([]string, 0, len(wanted.always)+len(wanted.each)), wanted.always, service, secret)
}

// eachOf adds the keys that a script has of each request or service.
func (k keys) eachOf(script *lua.Script, to []string, service, secret string) []string {
	return k.add(to, keysOf[script].each, service, secret)
}

func (k keys) add(to []string, wanted []keyOf, service, secret string) []string {
	for _, key := range wanted {
		to = append(to, key(k, service, secret))
	}
	return to
}
