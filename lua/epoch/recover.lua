-- Declares the state in Redis to be the one that counts from now on, if it is not the one that servers knew. It does so once:
-- another state that takes its place, or an older one, is lost again. The fences of all pools were raised before.
--
-- KEYS   epoch HASH
-- ARGV   the id of the epoch that was looked at, an id for the new one
--
-- answer 1  it was lost, and is no more
--        0  it was not, or it is another one meanwhile: nothing is changed
-- errors none
--
-- It has no case that takes longer than an offer.
local call = redis.call
-- include clock: read_clock

local keys = {epoch = KEYS[1]}
local looked_at, new = ARGV[1], ARGV[2]
local now = read_clock()

local id, state, missed = unpack(call('HMGET', keys.epoch, 'id', 'state', 'missed'))
if id ~= looked_at or state ~= 'lost' then return 0 end
call('HDEL', keys.epoch, 'behind', 'unknown') -- first, since a full Redis does not refuse it, and so nothing after it
call('HSET', keys.epoch, 'id', new, 'state', 'kept', 'since', now, 'missed', string.sub(missed .. ' ' .. id, -3700),
  'pulses', now)
return 1
