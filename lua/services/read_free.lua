-- Reads which ports of a service would be handed out next, as pick_any of parts/ports/pick.lua does. Changes nothing.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, resting ZSET
-- ARGV   service, how many of each list at most, 1,000 at most
--
-- answer {now (Unix ms), cooldown (ms), {port, score, ...}, {port, until, ...}, {last, first, ...}}: ports that were
--        given back and are free, that free for longest first; ports whose rest is over, until when it was; and the
--        runs of ports never handed out, lowest first. Those that rested come in between those of the first list, with
--        a score of `until` minus the cooldown.
--        0  settle.lua is to be called until it is done, and then this once more
-- errors SERVICE_NOT_FOUND
--
-- Worst case: 1,000 of each: about 1 ms (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include drains: has_drained
-- include service: is_changing, no_service, read_service

local keys = {service = KEYS[1], free = KEYS[2], fresh = KEYS[3], resting = KEYS[4]}
local most = ARGV[2]
local now = read_clock()
local service = read_service(keys, now, ARGV[1])
if not service.cooldown then return redis.error_reply(no_service(service.name)) end
if is_changing(service) or has_drained(keys, service) then return 0 end

local back = call('ZRANGEBYSCORE', keys.free, '-inf', service.free_before, 'WITHSCORES', 'LIMIT', '0', most)
local rested = {}
if service.rests then
  rested = call('ZRANGEBYSCORE', keys.resting, '-inf', now, 'WITHSCORES', 'LIMIT', '0', most)
end
local runs = call('ZRANGEBYSCORE', keys.fresh, '-inf', '+inf', 'WITHSCORES', 'LIMIT', '0', most)
return {now, service.cooldown, back, rested, runs}
