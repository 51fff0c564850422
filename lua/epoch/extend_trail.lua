-- Raises the number that a server writes at the end of a batch: replicas that have it have all that was written
-- before. It does so even if Redis is full.
--
-- KEYS   copied STRING
-- ARGV   the number, how long it lasts (ms)
--
-- answer the number before, '' if there was none
-- errors none
--
-- Worst case: it takes no longer than an offer.
local call = redis.call
-- include full_redis: set_though_full

local keys = {copied = KEYS[1]}
local number, lasting = unpack(ARGV)

local before = call('GET', keys.copied)
if before and tonumber(before) >= tonumber(number) then
  call('PEXPIRE', keys.copied, lasting) -- a later batch was faster; WAIT counts from a write all the same
else
  set_though_full(keys.copied, number, lasting)
end
return before or ''
