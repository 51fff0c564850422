local call = redis.call

-- The score up to which a port is free: it became free a cooldown ago.
local function free_before_of(now, cooldown)
  if not cooldown or cooldown == '0' then return now end
  return string.format('%d', now - cooldown)
end

-- Reads what decides who gets a port of a service:
--   name, now    as given
--   cooldown     ms; false if there is no such service
--   free_before  the score up to which a port is free
--   waiting      set if calls wait for a port
--   rests        no resting port is free before this time; false if none rests
--   by_name      set if it picks ports by name, see ports/by_name.lua
--   lease_bounds the default and the longest lease, see lease_bounds.lua; false if it has neither
--   unaligned    how far searches of ports/align.lua have come, if there are any
--   changing     what is left to do of a change of the range, see services/settle_range.lua; false if nothing is
--   drains       the ports that drain, see drains.lua; false if none does
local function read_service(keys, now, name)
  local cooldown, waiting, rests, changing, by_name, lease_bounds, unaligned, drains = unpack(call('HMGET',
    keys.service, 'cooldown', 'waiting', 'rests', 'changing', 'pick', 'lease_bounds', 'unaligned', 'drains'))
  return {
    name = name, now = now, cooldown = cooldown, free_before = free_before_of(now, cooldown),
    waiting = waiting, rests = rests, changing = changing, by_name = by_name, lease_bounds = lease_bounds,
    unaligned = unaligned, drains = drains,
  }
end

-- Whether a change of the range is left to do: settle_range of services/settle_range.lua does it.
local function is_changing(service)
  return service.changing and string.sub(service.changing, 1, 6) ~= 'narrow'
end

-- The error of a script whose service does not exist.
local function no_service(name)
  return 'SERVICE_NOT_FOUND there is no service ' .. name
end
