-- Puts a service in order, a step at a time: gives back ports whose rest is over, and goes on with what a change of its range
-- has left to be done.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, room ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        rest HASH
-- ARGV   none
--
-- answer 1  all is in order
--        0  it is to be called again
-- errors none
--
-- At worst 250 ports, each of a lease that ran out: about 1.5 ms where an offer takes 10 us.
local service_key, free, fresh, room, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local offers, ports, leases, resting, rest = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local call = redis.call
-- include clock
-- include service
if not cooldown then return 1 end
-- include clear
-- include clear_all
-- include runs
-- include rest
-- include settle_rest
-- include settle

call('HDEL', offers, '') -- nothing, but what a full Redis does not refuse, and so nothing after it
return settle_range(250) and settle_rest() and 1 or 0
