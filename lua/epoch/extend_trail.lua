-- Raises the number that a server leaves with its answers, so that replicas can be waited for that have it, and so all that was
-- written before. It does so although Redis is full.
--
-- KEYS   copied STRING
-- ARGV   the number, how long it is to last (ms)
--
-- answer the number that it found, '' if there was none
-- errors none
--
-- It has no case that takes longer than an offer.
local call = redis.call

local keys = {copied = KEYS[1]}
local number, lasting = ARGV[1], ARGV[2]

local was = call('GET', keys.copied)
if was and tonumber(was) >= tonumber(number) then -- one that was late; it is to change something nevertheless
  call('PEXPIRE', keys.copied, lasting)
  return was
end
local answer = redis.pcall('SET', keys.copied, number, 'PX', lasting)
if answer.err then
  call('UNLINK', keys.copied) -- a full Redis does not refuse this, and so nothing after it
  call('SET', keys.copied, number, 'PX', lasting)
end
return was or ''
