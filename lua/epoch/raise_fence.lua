-- Raises the fence of a pool above what was given, so that no two holders ever have the same.
--
-- KEYS   fence STRING
-- ARGV   the fence that the pool has at least ('0': any), '1' to let it be the time if it is older than a second
--
-- answer {fence, time}  the one that it found ('0': none), and the time, in microseconds
-- errors none
--
-- It has no case that takes longer than an offer.
local call = redis.call
-- include clock: read_clock

local keys = {fence = KEYS[1]}
local least, is_pulse = ARGV[1], ARGV[2]
local _, time = read_clock()

local last, at = call('GET', keys.fence), time[1] .. string.sub('00000' .. time[2], -6)
local raised = least
if is_pulse == '1' and last and at - last > 1000000 and at - least > 0 then raised = at end
if raised - (last or 0) > 0 then
  local answer = last and redis.pcall('SET', keys.fence, raised, 'KEEPTTL')
  if not last or answer.err then
    call('UNLINK', keys.fence) -- a full Redis does not refuse this, and so nothing after it
    call('SET', keys.fence, raised, 'PX', '7200000') -- the next one that is given has none
  end
end
return {last or '0', at}
