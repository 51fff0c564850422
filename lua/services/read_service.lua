-- Reads one service, and counts its ports. Changes nothing.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET, waitlist ZSET, heartbeats ZSET
-- ARGV   service
--
-- answer service as of parts/services/describe.lua
--        0  settle.lua is to be called until it is done, and then this once more
-- errors SERVICE_NOT_FOUND
--
-- Worst case: a waitlist of 64 servers and more: about 130 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include service: no_service
-- include services/describe: describe

local keys = {
  service = KEYS[1], free = KEYS[2], ports = KEYS[3], leases = KEYS[4], resting = KEYS[5], waitlist = KEYS[6],
  heartbeats = KEYS[7],
}
local name = ARGV[1]
local now = read_clock()

local service, is_late = describe(keys, now)
if not service then return redis.error_reply(no_service(name)) end
return is_late and 0 or service
