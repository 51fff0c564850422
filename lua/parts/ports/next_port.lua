local call = redis.call

-- The port that the short path hands out: the one that has been free the longest, or, if there is none, the lowest of
-- the first run of ports never handed out; then also the last port of that run. Nil if the call must take the long
-- path: there is no such service or free port, a call waits, ports drain, the service has to be settled first, picks
-- ports by name, or says which leases it gives.
local function next_port(service, free, fresh, now)
  local cooldown, waiting, rests, changing, drains, by_name, lease_bounds =
    unpack(call('HMGET', service, 'cooldown', 'waiting', 'rests', 'changing', 'drains', 'pick', 'lease_bounds'))
  if not cooldown or waiting or changing or drains or by_name or lease_bounds then return nil end
  if rests and tonumber(rests) <= tonumber(now) then return nil end
  local free_before = cooldown == '0' and now or string.format('%d', now - cooldown)
  local port = call('ZRANGEBYSCORE', free, '-inf', free_before, 'LIMIT', '0', '1')[1]
  if port then return port end
  local run = call('ZRANGE', fresh, '0', '0', 'WITHSCORES')
  return run[2], run[1]
end
