-- Raises the fence of a pool above those that were given, so that no two holders get the same.
--
-- KEYS   fence STRING
-- ARGV   the lowest fence that the pool may have ('0': any), '1' to raise it to the time if it is older than a second
--
-- answer {fence, time}  the fence before ('0': none), and the time, in microseconds
-- errors none
--
-- Worst case: it takes no longer than an offer.
local call = redis.call
-- include clock: read_clock
-- include full_redis: set_though_full

local keys = {fence = KEYS[1]}
local least, is_pulse = unpack(ARGV)
local _, microseconds = read_clock()

local last, raised = call('GET', keys.fence), least
if is_pulse == '1' and last and microseconds - last > 1000000 and microseconds - least > 0 then
  raised = microseconds
end
-- With a TTL, since the pool may have no service: the next fence that is given has none.
if raised - (last or 0) > 0 then set_though_full(keys.fence, raised, '7200000', last) end
return {last or '0', microseconds}
