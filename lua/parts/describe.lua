-- Describes a service and counts its ports.
--
-- answer: {description, start, end, created (Unix ms), cooldown (ms), ports offered, ports allocated, ports cooling,
--          calls waiting, now (Unix ms)}
--         nil  no such service
local function describe()
  local about = call('HMGET', service_key, 'description', 'start', 'end', 'created', 'cooldown')
  if not about[2] then return nil end
  local held = call('ZCOUNT', free, '(' .. now, '+inf') -- until a time: on offer, leased, or in quarantine
  local leased = call('ZCOUNT', leases, '(' .. now, '+inf')
  local out = call('ZCOUNT', quarantine, '(' .. now, '+inf')
  about[6] = held - leased - out
  about[7] = call('HLEN', ports) - call('ZCOUNT', leases, '-inf', now)
  about[8] = out + call('ZCOUNT', free, '(' .. string.format('%d', now - about[5]), now)
  about[9] = call('ZCOUNT', beats, '(' .. now, '+inf')
  about[10] = now
  return about
end
