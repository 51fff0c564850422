-- Adds a pool to the list of pools.
--
-- KEYS   pools SET
-- ARGV   pool, how many pools there may be ('': any number)
--
-- answer 1  it was not in the list
--        0  it was
-- errors LIMIT_REACHED
--
-- Worst case: it takes no longer than an offer.
local call = redis.call

local keys = {pools = KEYS[1]}
local pool, most = unpack(ARGV)

if most ~= '' and call('SISMEMBER', keys.pools, pool) == 0 and call('SCARD', keys.pools) >= tonumber(most) then
  return redis.error_reply('LIMIT_REACHED there are ' .. most .. ' pools, and there may be no more')
end
return call('SADD', keys.pools, pool)
