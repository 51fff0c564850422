-- Gives back ports whose rest is over: whether those were all.
local function settle_rest()
  if not rests or tonumber(rests) > tonumber(now) then return true end
  local due = call('ZRANGEBYSCORE', resting, '-inf', now, 'WITHSCORES', 'LIMIT', '0', '250')
  local back, ports_back = {}, {}
  for i = 1, #due, 2 do
    back[i], back[i + 1] = string.format('%d', due[i + 1] - cooldown), due[i]
    ports_back[#ports_back + 1] = due[i]
  end
  if #due > 0 then
    call('ZREM', resting, unpack(ports_back))
    call('ZADD', free, unpack(back))
  end
  rests = call('ZRANGE', resting, '0', '0', 'WITHSCORES')[2]
  if rests then call('HSET', service_key, 'rests', rests) else call('HDEL', service_key, 'rests') end
  return not rests or tonumber(rests) > tonumber(now)
end
