-- Settles a service, a step at a time: gives back ports whose rest is over, goes on with a change of its range,
-- and takes out ports that drained.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, rest HASH, events STREAM, labels HASH, last HASH, services ZSET, ends ZSET, ranges ZSET
-- ARGV   events, request
--
-- answer 1  the service is settled
--        0  call it again
-- errors none
--
-- Worst case: 250 ports, each of a lease that ended: about 1.5 ms, with a history 2.1 ms (an offer takes 10
-- us).
local call = redis.call
-- include clock: read_clock
-- include full_redis: write_though_full
-- include resting: settle_rest
-- include service: read_service
-- include services/drain: settle_drains
-- include services/settle_range: settle_range

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], rest = KEYS[10], events = KEYS[11],
  labels = KEYS[12], last = KEYS[13], services = KEYS[14], ends = KEYS[15], ranges = KEYS[16],
}
local now = read_clock()
local service = read_service(keys, now, string.match(keys.service, ':service:(.*)$'))
if not service.cooldown then return 1 end

write_though_full(keys.offers)
local is_settled = settle_range(keys, service, 250) and settle_rest(keys, service) and settle_drains(keys, service)
return is_settled and 1 or 0
