-- Takes a call out of the line, and tells those whose turn it is then.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET, line ZSET, beats ZSET, lines ZSET
-- ARGV   service, ticket
--
-- answer 1
-- errors none
--
-- At worst, 256 places that were lost: about 300 us where an offer takes 10 us.
local service_key, free, ports, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local resting, line, beats, lines = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local service, ticket = ARGV[1], ARGV[2]
local call = redis.call
-- include clock
-- include service
-- include waitlist

leave({ticket})
if cooldown and waiting then notify(2) end
return 1
