-- Recovers a lost epoch: the state in Redis is the one that counts from now on, under a new id. A state that replaces
-- it later is lost again, as is an older one. The fences of all pools must have been raised before.
--
-- KEYS   epoch HASH
-- ARGV   the id of the epoch that the operator looked at, an id for the new one
--
-- answer 1  it was lost, and is recovered
--        0  nothing was changed: it was not lost, or it is another epoch by now
-- errors none
--
-- Worst case: it takes no longer than an offer.
local call = redis.call
-- include clock: read_clock

local keys = {epoch = KEYS[1]}
local looked_at, new_id = unpack(ARGV)
local now = read_clock()

local id, state, missed = unpack(call('HMGET', keys.epoch, 'id', 'state', 'missed'))
if id ~= looked_at or state ~= 'lost' then return 0 end
call('HDEL', keys.epoch, 'behind', 'unknown') -- first, since a full Redis does not refuse it; see parts/full_redis.lua
call('HSET', keys.epoch, 'id', new_id, 'state', 'kept', 'since', now, 'missed', string.sub(missed .. ' ' .. id, -3700),
  'pulses', now)
return 1
