local call = redis.call
-- include ports/next_port: ready_before

-- The ports that the short path hands out to several calls: `count` of them or fewer, in the order of next_port. Also
-- how many of them were handed out before, and the runs of the others, as pairs of last and first port.
local function next_ports(service, free, fresh, now, count)
  local free_before = ready_before(service, now)
  if not free_before then return {}, 0 end
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

-- Takes the first `count` ports out of runs.
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
