package allocator

// DefaultPool is the pool of a call that names none.
const DefaultPool = "default"

// keys names every key of a pool. The braces are a Redis Cluster's hash tag: a pool is one slot, so that a script finds
// all of its keys on one node. Names hold no brace (see validate.go).
type keys string

func (a *Allocator) keys(pool string) keys { return keys(a.opts.KeyPrefix + ":{" + pool + "}:") }

// pools is the SET of the pools that were ever given a service: a list for people, on which no decision rests.
func (a *Allocator) poolsKey() string { return a.opts.KeyPrefix + ":pools" }

// deploymentKey is a STRING: which state this is, as JSON, by which a server notices that the one it knew is gone.
func (a *Allocator) deploymentKey() string { return a.opts.KeyPrefix + ":deployment" }

// services is a ZSET: service name, scored by the start of its range.
func (k keys) services() string { return string(k) + "services" }

// ends is a ZSET: service name, scored by the end of its range.
func (k keys) ends() string { return string(k) + "ends" }

// fence is a STRING: the last fence number given in the pool.
func (k keys) fence() string { return string(k) + "fence" }

// service is a HASH: description, start, end, cooldown (ms), created (Unix ms), and waiting while
// there is a line.
func (k keys) service(service string) string { return string(k) + "service:" + service }

// free is a ZSET: port, scored by the time (Unix ms) from which it is free.
func (k keys) free(service string) string { return string(k) + "free:" + service }

// fresh is a ZSET: the last port of a run of ports that were never handed out, scored by the first.
func (k keys) fresh(service string) string { return string(k) + "fresh:" + service }

// room is a ZSET: the last port of a run of fresh ports, scored by how long it is, for those of 2 and more. It is where
// blocks look, and put right when they do: fresh says how long a run is by now.
func (k keys) room(service string) string { return string(k) + "room:" + service }

// leases is a ZSET: port, scored by the time (Unix ms) when its lease ends. One that ran out stays until its port is
// handed out again, or its name.
func (k keys) leases(service string) string { return string(k) + "leases:" + service }

// quarantine is a ZSET: a port that was rejected as in use, scored as in free.
func (k keys) quarantine(service string) string { return string(k) + "quarantine:" + service }

// line is a ZSET: the ticket of a call that waits for a port, scored by its place in the line.
func (k keys) line(service string) string { return string(k) + "line:" + service }

// beats is a ZSET: the ticket of a call in line, scored by the time (Unix ms) when it loses its place unless it is heard of.
func (k keys) beats(service string) string { return string(k) + "beats:" + service }

// names is a HASH: instance name -> port, offered or allocated.
func (k keys) names(service string) string { return string(k) + "names:" + service }

// offers is a HASH: port -> its open offer, as JSON, or "leased" where its allocation is. One that ran
// out stays until its port or its name is offered again.
func (k keys) offers(service string) string { return string(k) + "offers:" + service }

// ports is a HASH: port -> its allocation, as JSON; of a block the first port has it, and the others have its number.
func (k keys) ports(service string) string { return string(k) + "ports:" + service }

// offer is a STRING with a TTL: the offer of a secret, as JSON.
func (k keys) offer(secret string) string { return string(k) + "offer:" + secret }
