local call = redis.call
-- include drains: count_draining
-- include service: is_changing

-- How many calls wait. Of the first 64, those of servers whose heartbeats are missing do not count.
local function count_waiting(keys, now)
  local servers, calls, waiting = {}, {}, 0
  for _, ticket in ipairs(call('ZRANGE', keys.waitlist, '0', '63')) do
    local server = string.match(ticket, '^[^-]+')
    if not calls[server] then servers[#servers + 1] = server end
    calls[server] = (calls[server] or 0) + 1
    waiting = waiting + 1
  end
  if waiting == 0 then return 0 end
  if waiting == 64 then waiting = call('ZCARD', keys.waitlist) end
  for i, lasts in ipairs(call('ZMSCORE', keys.heartbeats, unpack(servers))) do
    local left = (lasts or 0) - now
    if left <= 0 or left > 1500 then waiting = waiting - calls[servers[i]] end
  end
  return waiting
end

-- How many ports are on offer, allocated, and cooling down. Most services have none: then one command tells.
local function count_ports(keys, now, cooldown, rests)
  local free, leases = keys.free, keys.leases
  if call('EXISTS', free, keys.ports, keys.resting) == 0 then return 0, 0, 0 end
  local allocated, leased = call('HLEN', keys.ports), 0
  local all_leases = allocated > 0 and call('ZCARD', leases) or 0
  if all_leases > 0 then
    leased = call('ZCOUNT', leases, '(' .. now, '+inf')
    allocated = allocated - (all_leases - leased) -- without those whose lease ended
  end
  local held = call('ZCOUNT', free, '(' .. now, '+inf') -- on offer or leased
  local cooling = rests and call('ZCOUNT', keys.resting, '(' .. now, '+inf') or 0
  if cooldown ~= '0' then cooling = cooling + call('ZCOUNT', free, '(' .. string.format('%d', now - cooldown), now) end
  return held - leased, allocated, cooling
end

-- Describes a service: {start, end, cooldown (ms), ports offered, ports allocated, ports cooling, calls waiting, now
-- (Unix ms), ranges if it has several, pick if it picks by name, 'COUNT RANGES' if ports drain, description, created
-- (Unix ms), lease bounds if it has any}, in brief without the last three. Nil if there is no such service. Also
-- returns whether settle.lua must be called before the ports that drain can be counted.
local function describe(keys, now, in_brief)
  local start, stop, cooldown, waiting, rests, ranges, pick, drains, description, created, lease_bounds
  if in_brief then
    start, stop, cooldown, waiting, rests, ranges, pick, drains =
      unpack(call('HMGET', keys.service, 'start', 'end', 'cooldown', 'waiting', 'rests', 'ranges', 'pick', 'drains'))
  else
    start, stop, cooldown, waiting, rests, ranges, pick, drains, description, created, lease_bounds =
      unpack(call('HMGET', keys.service, 'start', 'end', 'cooldown', 'waiting', 'rests', 'ranges', 'pick', 'drains',
        'description', 'created', 'lease_bounds'))
  end
  if not start then return nil end
  local offered, allocated, cooling = count_ports(keys, now, cooldown, rests)
  local draining, ended, is_late = false, 0, false
  if drains then
    draining, ended, is_late = count_draining(keys, now, cooldown, drains)
    draining = draining .. ' ' .. string.match(drains, '%S+$')
    is_late = is_late or is_changing({changing = call('HGET', keys.service, 'changing')})
  end
  local waits = waiting and count_waiting(keys, now) or 0
  local answer = {start, stop, cooldown, offered, allocated, cooling - ended, waits, now, ranges, pick, draining,
    description, created, lease_bounds}
  return answer, is_late
end
