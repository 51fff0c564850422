local call = redis.call

-- The score up to which a port is free, its cool-down being over.
local function free_before_of(now, cooldown)
  if not cooldown or cooldown == '0' then return now end
  return string.format('%d', now - cooldown)
end

-- What of a service decides who gets a port: its name and the time, its cool-down (ms), false if there is no such service;
-- free_before, the score up to which a port is free; waiting, if calls wait for a port; rests, a time at which no resting port
-- is free yet; and changing, what of a change of the range is still to be done (see settle_range).
local function read_service(keys, now, name)
  local cooldown, waiting, rests, changing =
    unpack(call('HMGET', keys.service, 'cooldown', 'waiting', 'rests', 'changing'))
  return {
    name = name, now = now, cooldown = cooldown, free_before = free_before_of(now, cooldown),
    waiting = waiting, rests = rests, changing = changing,
  }
end

-- The error of a script that works on a service that is not there.
local function no_service(name)
  return 'SERVICE_NOT_FOUND there is no service ' .. name
end

return free_before_of, read_service, no_service
