-- Sends the heartbeat of a server, so that its calls keep their positions in all waitlists of a pool. Says which
-- waitlists to look at.
--
-- KEYS   heartbeats ZSET, waitlists ZSET
-- ARGV   server
--
-- answer {known, service, ...}  1 if the server has kept its positions, 0 if they may be lost; 1,000 services at most
-- errors none
--
-- Worst case: 1,000 services, and 10,000 servers that are gone: about 1 ms (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include waitlist: kept_until

local keys = {heartbeats = KEYS[1], waitlists = KEYS[2]}
local server = ARGV[1]
local now = read_clock()

-- After a server has lost its positions, it may be another call's turn in any waitlist: all are to be looked at once.
local due = call('ZREMRANGEBYSCORE', keys.heartbeats, '-inf', now) > 0 and '+inf' or now
local latest = kept_until(now)
local is_new = call('ZADD', keys.heartbeats, latest, server)
-- If Redis's clock stepped back, positions last no longer than if the heartbeat had come now.
for _, other in ipairs(call('ZRANGEBYSCORE', keys.heartbeats, '(' .. latest, '+inf', 'LIMIT', '0', '100')) do
  call('ZADD', keys.heartbeats, latest, other)
end
return {1 - is_new, unpack(call('ZRANGEBYSCORE', keys.waitlists, '-inf', due, 'LIMIT', '0', '1000'))}
