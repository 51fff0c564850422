-- Reads services of a pool, and counts their ports. Changes nothing.
--
-- KEYS   of each service, 32 at most: service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET, waitlist ZSET,
--        heartbeats ZSET
-- ARGV   '1' if in brief
--
-- answer {service as of parts/describe.lua, ...}, '' where there is no such service
-- errors none
--
-- At worst, 32 services with leases, offers, a cool-down, and a line of 64 servers and more: about 1.2 ms where an offer takes
-- 10 us. It grows with the number of services, not with that of their ports.
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
