-- Takes pools out of the list of pools.
--
-- KEYS   pools SET
-- ARGV   pools, 1 to 250
--
-- answer how many were in the list
-- errors none
local pools = KEYS[1]
local call = redis.call

return call('SREM', pools, unpack(ARGV))
