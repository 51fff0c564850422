-- Finds out whether the user of Redis may write events. Changes nothing, since it is the history of no service.
--
-- KEYS   events STREAM
-- ARGV   none
--
-- answer 1
--        an error that begins with NOPERM: the user may not
-- errors none
--
-- Worst case: it always takes about as long.
local call = redis.call

local events = unpack(KEYS)
local _, answer = pcall(call, 'XADD', events, 'NOMKSTREAM', '*', 'event', '')
-- The versions of Redis say it in different ways.
local refusal = tostring(type(answer) == 'table' and answer.err or answer)
if string.find(refusal, 'NOPERM', 1, true) or string.find(refusal, "can't run this command", 1, true) then
  return redis.error_reply('NOPERM the user may not run xadd, so there would be no history; without one it need not')
end
return 1
