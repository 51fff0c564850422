local call = redis.call
-- include ranges: first_within, parse_ranges, text_of

-- Ports that have left the ranges of a service while they were held drain: they stay held until that ends, and are gone
-- then. `drains` of the service is 'COUNT SWEPT RANGES'. RANGES is the text of the ranges that have left. COUNT is how
-- many of their ports are in `free` or `ports`; no other port of them is in a key of the service. A hold that ends
-- leaves its port in `free`, with a score from SWEPT to now: services/drain.lua takes it from there.

-- Reads `drains`: count, swept, ranges; 0, nil and {} if no port drains.
local function parse_drains(drains)
  if not drains then return 0, nil, {} end
  local count, swept, text = string.match(drains, '^(%d+) (%d+) (.*)$')
  return tonumber(count), tonumber(swept), parse_ranges(text)
end

-- What `drains` says of the ports: 'COUNT RANGES'. As long as it stays the same, so do the ports that it counts.
local function said_of(drains)
  return (string.gsub(drains, ' %d+ ', ' ', 1))
end

-- Whether a port is in the ranges that drain.
local function is_draining(ranges, port)
  return first_within(ranges, tonumber(port), tonumber(port)) ~= nil
end

-- Writes `drains`.
local function set_drains(keys, service, count, swept, ranges)
  service.drains = string.format('%d %d %s', math.max(count, 0), swept, text_of(ranges))
  call('HSET', keys.service, 'drains', service.drains)
end

-- Looks at ports whose holds ended since they were swept, 250 at most: returns pairs of a port that drained and its
-- score, the time up to which it has looked, and whether those were all. If the clock stepped back, it begins again.
local function drained_ports(keys, now, drains)
  local _, swept, ranges = parse_drains(drains)
  if swept > tonumber(now) then swept = 0 end
  local found = call('ZRANGEBYSCORE', keys.free, string.format('%d', swept), now, 'WITHSCORES', 'LIMIT', '0', '250')
  local drained = {}
  for i = 1, #found, 2 do
    if is_draining(ranges, found[i]) then
      drained[#drained + 1], drained[#drained + 2] = found[i], found[i + 1]
    end
  end
  if #found < 500 then return drained, tonumber(now), true end
  local last = tonumber(found[#found])
  -- So many ports that stay became free in one millisecond: it does not look at them for ever.
  if last == swept and #drained == 0 then last = last + 1 end
  return drained, last, false
end

-- Whether services/settle.lua must be called before ports are granted. If not, it notes how far it has looked.
local function must_drain(keys, service)
  if not service.drains then return false end
  local count, _, ranges = parse_drains(service.drains)
  local drained, swept, is_all = drained_ports(keys, service.now, service.drains)
  if count == 0 or #drained > 0 or not is_all then return true end
  set_drains(keys, service, count, swept, ranges)
  return false
end

-- Whether ports that drained may still look as if they were free.
local function has_drained(keys, service)
  if not service.drains then return false end
  local drained, _, is_all = drained_ports(keys, service.now, service.drains)
  return #drained > 0 or not is_all
end

-- Counts the ports that drain now, and those of them that have ended and still look as if they cooled down. Also
-- returns whether there may be others that ended.
local function count_draining(keys, now, cooldown, drains)
  local count = parse_drains(drains)
  if count == 0 then return 0, 0, false end
  local drained, _, is_all = drained_ports(keys, now, drains)
  local cooling = 0
  for i = 2, #drained, 2 do
    if tonumber(drained[i]) > now - cooldown then cooling = cooling + 1 end
  end
  return math.max(count - #drained / 2, 0), cooling, not is_all
end
