-- Reads services of a pool, and counts their ports. Changes nothing.
--
-- KEYS   of each service, 32 at most: service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET,
--        line ZSET, beats ZSET
-- ARGV   '1' if in brief
--
-- answer {service as of describe.lua, ...}, '' where there is no such service
-- errors none
--
-- At worst, 32 services with leases, offers, a cool-down, and a line of 64 servers and more: about 1.2 ms where an offer takes
-- 10 us. It grows with the number of services, not with that of their ports.
local service_key, free, ports, leases, resting, line, beats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local in_brief = ARGV[1] == '1'
local call = redis.call
-- include clock
-- include describe

local services = {}
for i = 1, #KEYS, 7 do
  service_key, free, ports, leases, resting, line, beats = unpack(KEYS, i, i + 6)
  services[#services + 1] = describe(in_brief) or ''
end
return services
