-- Makes a change of a pool that replicas can be waited for: it makes the key that a PEXPIRE changes from then on, which is the
-- shorter way.
--
-- KEYS   copied STRING
-- ARGV   how long the key is to last (ms)
--
-- answer 1
-- errors none
--
-- It has no case that takes longer than an offer.
local copied = KEYS[1]
local lasting = ARGV[1]
local call = redis.call

call('UNLINK', copied) -- the first change, since a full Redis does not refuse it, and so none after it
call('SET', copied, '', 'PX', lasting)
return 1
