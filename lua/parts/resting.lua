local call = redis.call
-- include clear_ended: clear_all

-- Ports that rest until a time of their own, whatever becomes of the cool-down, the range and the service: `resting` has
-- those of the service, which are in no other set of it. `rest` has all of the pool, so that a range that is added finds
-- those in it; it may say so of ports whose rest is over.

-- Lets ports rest: pairs of a port and the time until which.
local function let_rest(keys, until_of)
  if #until_of == 0 then return end
  local by_time, soonest = {}, math.huge
  for i = 1, #until_of, 2 do
    by_time[i], by_time[i + 1] = until_of[i + 1], until_of[i]
    soonest = math.min(soonest, tonumber(until_of[i + 1]))
  end
  call('ZADD', keys.resting, unpack(by_time))
  call('HSET', keys.rest, unpack(until_of))
  call('PEXPIRE', keys.rest, '2678400000') -- 31 days: nothing rests for longer
  local first = call('HGET', keys.service, 'rests')
  if not first or tonumber(first) > soonest then
    call('HSET', keys.service, 'rests', string.format('%d', soonest))
  end
end

-- Makes the ports that cool down rest until their time, whatever becomes of the cool-down: 150 at most. Whether those were all.
local function put_to_rest(keys, service)
  local now, cooldown = service.now, service.cooldown
  local since = string.format('%d', now - cooldown)
  local cooling = call('ZRANGEBYSCORE', keys.free, '(' .. since, now, 'WITHSCORES', 'LIMIT', '0', '150')
  if #cooling == 0 then return true end
  local all, until_of = {}, {}
  for i = 1, #cooling, 2 do
    all[#all + 1] = cooling[i]
    until_of[i], until_of[i + 1] = cooling[i], string.format('%d', cooling[i + 1] + cooldown)
  end
  clear_all(keys, all, math.huge)
  call('ZREM', keys.free, unpack(all))
  let_rest(keys, until_of)
  return #all < 150
end

-- Gives back ports whose rest is over: whether those were all.
local function settle_rest(keys, service)
  local now, rests = service.now, service.rests
  if not rests or tonumber(rests) > tonumber(now) then return true end
  local due = call('ZRANGEBYSCORE', keys.resting, '-inf', now, 'WITHSCORES', 'LIMIT', '0', '250')
  local back, ports_back = {}, {}
  for i = 1, #due, 2 do
    back[i], back[i + 1] = string.format('%d', due[i + 1] - service.cooldown), due[i]
    ports_back[#ports_back + 1] = due[i]
  end
  if #due > 0 then
    call('ZREM', keys.resting, unpack(ports_back))
    call('ZADD', keys.free, unpack(back))
  end
  rests = call('ZRANGE', keys.resting, '0', '0', 'WITHSCORES')[2]
  if rests then call('HSET', keys.service, 'rests', rests) else call('HDEL', keys.service, 'rests') end
  service.rests = rests
  return not rests or tonumber(rests) > tonumber(now)
end

return let_rest, put_to_rest, settle_rest
