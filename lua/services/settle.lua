-- Puts a service in order, a step at a time: gives back ports whose rest is over, and goes on with what a change of its range
-- has left to be done.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        rest HASH
-- ARGV   none
--
-- answer 1  all is in order
--        0  it is to be called again
-- errors none
--
-- At worst 250 ports, each of a lease that ran out: about 1.5 ms where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock
-- include resting: settle_rest
-- include service: read_service
-- include services/settle_range: settle_range

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], rest = KEYS[10],
}
local service = read_service(keys, read_clock())
if not service.cooldown then return 1 end

call('HDEL', keys.offers, '') -- nothing, but what a full Redis does not refuse, and so nothing after it
return settle_range(keys, service, 250) and settle_rest(keys, service) and 1 or 0
