local call = redis.call

-- The port to hand out next, if nothing is in the way: the one that has been free the longest; if there is none, the lowest
-- that was never handed out, and the run that it begins, by its last port. Nil if a call has to go the long way, since there is
-- no such service or port, somebody waits, or there is something to be put in order before.
local function next_port(service, free, fresh, now)
  local cooldown, waiting, rests, changing = unpack(call('HMGET', service, 'cooldown', 'waiting', 'rests', 'changing'))
  if not cooldown or waiting or changing or rests and tonumber(rests) <= tonumber(now) then return nil end
  local free_before = cooldown == '0' and now or string.format('%d', now - cooldown)
  local port = call('ZRANGEBYSCORE', free, '-inf', free_before, 'LIMIT', '0', '1')[1]
  if port then return port end
  local run = call('ZRANGE', fresh, '0', '0', 'WITHSCORES')
  return run[2], run[1]
end

return next_port
