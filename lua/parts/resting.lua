local call = redis.call
-- include clear_ended: clear_ended

-- Ports that rest until a time of their own, whatever happens to the cooldown, the range or the service. `resting`
-- has those of the service; they are in no other set of it. `rest` has those of the whole pool, so that a range that
-- is added later finds them. It may still list ports whose rest is over.

-- Notes for the pool until when ports rest that the service does not have any more. until_of is that of let_rest.
local function note_rest(keys, until_of)
  if #until_of == 0 then return end
  call('HSET', keys.rest, unpack(until_of))
  call('PEXPIRE', keys.rest, '2678400000') -- 31 days: no port rests longer
end

-- Lets ports rest. until_of has pairs of a port and the time until which it rests.
local function let_rest(keys, until_of)
  if #until_of == 0 then return end
  local by_time, soonest = {}, math.huge
  for i = 1, #until_of, 2 do
    by_time[i], by_time[i + 1] = until_of[i + 1], until_of[i]
    soonest = math.min(soonest, tonumber(until_of[i + 1]))
  end
  call('ZADD', keys.resting, unpack(by_time))
  note_rest(keys, until_of)
  local first = call('HGET', keys.service, 'rests')
  if not first or tonumber(first) > soonest then
    call('HSET', keys.service, 'rests', string.format('%d', soonest))
  end
end

-- Lets the ports that cool down rest until their cooldown is over, 150 at most, so that a change of the cooldown does
-- not change that. Returns whether those were all.
local function rest_cooling(keys, service)
  local now, cooldown = service.now, service.cooldown
  local since = string.format('%d', now - cooldown)
  local cooling = call('ZRANGEBYSCORE', keys.free, '(' .. since, now, 'WITHSCORES', 'LIMIT', '0', '150')
  if #cooling == 0 then return true end
  local all, until_of = {}, {}
  for i = 1, #cooling, 2 do
    all[#all + 1] = cooling[i]
    until_of[i], until_of[i + 1] = cooling[i], string.format('%d', cooling[i + 1] + cooldown)
  end
  clear_ended(keys, all, math.huge)
  call('ZREM', keys.free, unpack(all))
  let_rest(keys, until_of)
  return #all < 150
end

-- Gives back ports whose rest is over, 250 at most. Returns whether those were all.
local function settle_rest(keys, service)
  local now, rests = service.now, service.rests
  if not rests or tonumber(rests) > tonumber(now) then return true end
  local due = call('ZRANGEBYSCORE', keys.resting, '-inf', now, 'WITHSCORES', 'LIMIT', '0', '250')
  local scores, ports = {}, {}
  for i = 1, #due, 2 do
    scores[i], scores[i + 1] = string.format('%d', due[i + 1] - service.cooldown), due[i]
    ports[#ports + 1] = due[i]
  end
  if #due > 0 then
    call('ZREM', keys.resting, unpack(ports))
    call('ZADD', keys.free, unpack(scores))
  end
  rests = call('ZRANGE', keys.resting, '0', '0', 'WITHSCORES')[2]
  if rests then call('HSET', keys.service, 'rests', rests) else call('HDEL', keys.service, 'rests') end
  service.rests = rests
  return not rests or tonumber(rests) > tonumber(now)
end
