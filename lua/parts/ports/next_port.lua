local call = redis.call

-- The port that the short path hands out: the one that has been free the longest, or, if there is none, the lowest of
-- the first run of ports never handed out; then also the last port of that run. Nil if the call must take the long
-- path: there is no such service or free port, a call waits, ports drain, or the service has to be settled first.
local function next_port(service, free, fresh, now)
  local cooldown, waiting, rests, changing, drains =
    unpack(call('HMGET', service, 'cooldown', 'waiting', 'rests', 'changing', 'drains'))
  if not cooldown or waiting or changing or drains or rests and tonumber(rests) <= tonumber(now) then return nil end
  local free_before = cooldown == '0' and now or string.format('%d', now - cooldown)
  local port = call('ZRANGEBYSCORE', free, '-inf', free_before, 'LIMIT', '0', '1')[1]
  if port then return port end
  local run = call('ZRANGE', fresh, '0', '0', 'WITHSCORES')
  return run[2], run[1]
end
