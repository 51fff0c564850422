-- Says that a server is there, so that its calls keep their places in all lines of a pool, and which lines are worth a look.
--
-- KEYS   beats ZSET, lines ZSET
-- ARGV   server
--
-- answer {known, service, ...}  1 if its places were kept until now, 0 if they may be lost; 1,000 services at most
-- errors none
--
-- At worst, 1,000 services and 10,000 servers that are gone: about 1 ms where an offer takes 10 us.
local beats, lines = KEYS[1], KEYS[2]
local server = ARGV[1]
local call = redis.call
-- include clock

-- Where a server has lost its places any line may be worth a look: this once.
local due = call('ZREMRANGEBYSCORE', beats, '-inf', now) > 0 and '+inf' or now
local kept_until = string.format('%d', now + 1500)
local is_new = call('ZADD', beats, kept_until, server)
-- If Redis' clock has stepped back, the places of others are kept no longer than if they had just been heard of.
for _, other in ipairs(call('ZRANGEBYSCORE', beats, '(' .. kept_until, '+inf', 'LIMIT', '0', '100')) do
  call('ZADD', beats, kept_until, other)
end
return {1 - is_new, unpack(call('ZRANGEBYSCORE', lines, '-inf', due, 'LIMIT', '0', '1000'))}
