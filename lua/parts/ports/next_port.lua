local call = redis.call

-- The score up to which a port in `free` has cooled down. Nil if calls must take the long path: there is no such
-- service, a call waits, ports drain, the service has to be settled first, picks ports by name, or says which leases it
-- gives.
local function ready_before(service, now)
  local cooldown, waiting, rests, changing, drains, by_name, lease_bounds =
    unpack(call('HMGET', service, 'cooldown', 'waiting', 'rests', 'changing', 'drains', 'pick', 'lease_bounds'))
  if not cooldown or waiting or changing or drains or by_name or lease_bounds then return nil end
  if rests and tonumber(rests) <= tonumber(now) then return nil end
  return cooldown == '0' and now or string.format('%d', now - cooldown)
end

-- The port that the short path hands out: the one that has been free the longest, or, if there is none, the lowest of
-- the first run of ports never handed out; then also the last port of that run. Nil if the call must take the long
-- path, also if no port is free.
local function next_port(service, free, fresh, now)
  local free_before = ready_before(service, now)
  if not free_before then return nil end
  local port = call('ZRANGEBYSCORE', free, '-inf', free_before, 'LIMIT', '0', '1')[1]
  if port then return port end
  local run = call('ZRANGE', fresh, '0', '0', 'WITHSCORES')
  return run[2], run[1]
end
