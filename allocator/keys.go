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

// service is a HASH: description, start, end, created (Unix ms), and fresh, the spans of ports never handed out.
func (k keys) service(service string) string { return string(k) + "service:" + service }

// free is a ZSET: port, scored by the time (Unix ms) from which it is free.
func (k keys) free(service string) string { return string(k) + "free:" + service }

// names is a HASH: instance name -> port, offered or allocated.
func (k keys) names(service string) string { return string(k) + "names:" + service }

// offers is a HASH: port -> its open offer, as JSON. One that ran out stays until its port or its name is offered again.
func (k keys) offers(service string) string { return string(k) + "offers:" + service }

// ports is a HASH: port -> its allocation, as JSON.
func (k keys) ports(service string) string { return string(k) + "ports:" + service }

// offer is a STRING with a TTL: the offer of a secret, as JSON.
func (k keys) offer(secret string) string { return string(k) + "offer:" + secret }
