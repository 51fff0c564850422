-- Says that a server is there, so that its calls keep their places in all lines of a pool, and which lines are worth a look.
--
-- KEYS   heartbeats ZSET, waitlists ZSET
-- ARGV   server
--
-- answer {known, service, ...}  1 if its places were kept until now, 0 if they may be lost; 1,000 services at most
-- errors none
--
-- At worst, 1,000 services and 10,000 servers that are gone: about 1 ms where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock
-- include waitlist: kept_until

local keys = {heartbeats = KEYS[1], waitlists = KEYS[2]}
local server = ARGV[1]
local now = read_clock()

-- Once a server has lost its positions any waitlist may be worth a look: this once.
local due = call('ZREMRANGEBYSCORE', keys.heartbeats, '-inf', now) > 0 and '+inf' or now
local latest = kept_until(now)
local is_new = call('ZADD', keys.heartbeats, latest, server)
-- If Redis' clock has stepped back, the positions of others are kept no longer than if they had just been heard of.
for _, other in ipairs(call('ZRANGEBYSCORE', keys.heartbeats, '(' .. latest, '+inf', 'LIMIT', '0', '100')) do
  call('ZADD', keys.heartbeats, latest, other)
end
return {1 - is_new, unpack(call('ZRANGEBYSCORE', keys.waitlists, '-inf', due, 'LIMIT', '0', '1000'))}
