-- Ports that rest until a time of their own, whatever becomes of the cool-down, the range and the service: `resting` has
-- those of the service, which are in no other set of it. `rest` has all of the pool, so that a range that is added finds
-- those in it; it may say so of ports whose rest is over.

-- Lets ports rest: pairs of a port and the time until which.
local function let_rest(pairs_of)
  if #pairs_of == 0 then return end
  local by_time, soonest = {}, math.huge
  for i = 1, #pairs_of, 2 do
    by_time[i], by_time[i + 1] = pairs_of[i + 1], pairs_of[i]
    soonest = math.min(soonest, tonumber(pairs_of[i + 1]))
  end
  call('ZADD', resting, unpack(by_time))
  call('HSET', rest, unpack(pairs_of))
  call('PEXPIRE', rest, '2678400000') -- 31 days: nothing rests for longer
  local first = call('HGET', service_key, 'rests')
  if not first or tonumber(first) > soonest then call('HSET', service_key, 'rests', string.format('%d', soonest)) end
end
