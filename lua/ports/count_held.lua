-- Counts the ports that an owner holds in a pool, those of its open offers included. Changes nothing.
--
-- KEYS   of an owner: owned ZSET
-- ARGV   owner
--
-- answer how many ports
-- errors none
--
-- Worst case: it always takes less than an offer.
local call = redis.call
-- include clock: read_clock
-- include owner: count_held

local keys = {owned = KEYS[1]}
local now = read_clock()

return count_held(keys, now)
