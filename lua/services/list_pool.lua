-- Puts a pool into the list of pools.
--
-- KEYS   pools SET
-- ARGV   pool, how many pools there may be ('' where it is not to be refused)
--
-- answer 1  it was not in the list
--        0  it was
-- errors LIMIT_REACHED
--
-- It has no case that takes longer than an offer.
local call = redis.call

local keys = {pools = KEYS[1]}
local pool, most = ARGV[1], ARGV[2]

if most ~= '' and call('SISMEMBER', keys.pools, pool) == 0 and call('SCARD', keys.pools) >= tonumber(most) then
  return redis.error_reply('LIMIT_REACHED there are ' .. most .. ' pools, and there may be no more')
end
return call('SADD', keys.pools, pool)
