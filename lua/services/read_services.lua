-- Reads services of a pool, and counts their ports. Changes nothing.
--
-- KEYS   of each service, 32 at most: service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET, waitlist ZSET,
--        heartbeats ZSET
-- ARGV   '1' for brief descriptions
--
-- answer {service as of parts/services/describe.lua, ...}, '' if there is no such service
-- errors none
--
-- Worst case: 32 services with leases, offers, a cooldown, and a waitlist of 64 servers and more: about 1.2 ms (an
-- offer takes 10 us). It grows with the number of services, not with their ports.
local call = redis.call
-- include clock: read_clock
-- include services/describe: describe

local in_brief = ARGV[1] == '1'
local now = read_clock()

local services = {}
for i = 1, #KEYS, 7 do
  local keys = {
    service = KEYS[i], free = KEYS[i + 1], ports = KEYS[i + 2], leases = KEYS[i + 3], resting = KEYS[i + 4],
    waitlist = KEYS[i + 5], heartbeats = KEYS[i + 6],
  }
  services[#services + 1] = describe(keys, now, in_brief) or ''
end
return services
