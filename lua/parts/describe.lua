-- How many calls wait in line, those of servers that were lost left out: of the first 250, that is.
local function count_waiting()
  local tickets = call('ZRANGE', line, '0', '249')
  local waiting_calls, alive = #tickets, {}
  for _, ticket in ipairs(tickets) do
    local server = string.match(ticket, '^[^-]+')
    if alive[server] == nil then alive[server] = tonumber(call('ZSCORE', beats, server) or 0) > tonumber(now) end
    if not alive[server] then waiting_calls = waiting_calls - 1 end
  end
  return waiting_calls + (#tickets == 250 and call('ZCARD', line) - 250 or 0)
end

-- Describes a service and counts its ports.
--
-- answer: {description, start, end, created (Unix ms), cooldown (ms), ports offered, ports allocated, ports cooling,
--          calls waiting, now (Unix ms)}
--         nil  no such service
local function describe()
  local about = call('HMGET', service_key, 'description', 'start', 'end', 'created', 'cooldown')
  if not about[2] then return nil end
  local held = call('ZCOUNT', free, '(' .. now, '+inf') -- until a time: on offer or leased
  local leased = call('ZCOUNT', leases, '(' .. now, '+inf')
  about[6] = held - leased
  about[7] = call('HLEN', ports) - call('ZCOUNT', leases, '-inf', now)
  about[8] = call('ZCOUNT', resting, '(' .. now, '+inf') + call('ZCOUNT', free, '(' .. string.format('%d', now - about[5]), now)
  about[9] = count_waiting()
  about[10] = now
  return about
end
