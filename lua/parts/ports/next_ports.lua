local call = redis.call

-- The ports that the short path hands out, `count` of them or fewer: those that have been free the longest, then the
-- lowest that were never handed out. Also how many of them are of the first kind, and the runs of the others, as pairs
-- of last and first port. None if the calls must take the long path: there is no such service or no free port, a call
-- waits, or the service has to be settled first.
local function next_ports(service, free, fresh, now, count)
  local cooldown, waiting, rests, changing = unpack(call('HMGET', service, 'cooldown', 'waiting', 'rests', 'changing'))
  if not cooldown or waiting or changing or rests and tonumber(rests) <= tonumber(now) then return {}, 0 end
  local free_before = cooldown == '0' and now or string.format('%d', now - cooldown)
  local ports = call('ZRANGEBYSCORE', free, '-inf', free_before, 'LIMIT', '0', count)
  local used = #ports
  if used == count then return ports, used end
  local runs = call('ZRANGE', fresh, '0', count - used - 1, 'WITHSCORES')
  for i = 1, #runs, 2 do
    local first = tonumber(runs[i + 1])
    for port = first, math.min(runs[i], first + count - #ports - 1) do
      ports[#ports + 1] = string.format('%d', port)
    end
  end
  return ports, used, runs
end

-- Takes `count` ports, the first ones, out of runs.
local function take_fresh(fresh, runs, count)
  for i = 1, #runs, 2 do
    if count <= 0 then return end
    local first = runs[i + 1] + count
    count = first - runs[i] - 1
    if count >= 0 then
      call('ZREM', fresh, runs[i])
    else
      call('ZADD', fresh, string.format('%d', first), runs[i])
    end
  end
end
