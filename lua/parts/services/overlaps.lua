local call = redis.call

-- The ranges of a pool, none of which overlaps another. A service with one range is in `services`, scored by its start,
-- and in `ends`, scored by its end. A service with several is in `services` as well, scored by the first of its ports,
-- but not in `ends`: each of its ranges is in `ranges`, as 'SERVICE FIRST-LAST', scored by the first.

-- Says which other service has one of the ports first-last, and in which range; nil if none has. Neighbours tell:
-- of the services with one range the first that ends behind `first`, of `ranges` the last that starts before `last`.
local function overlap_of(keys, name, first, last)
  for _, other in ipairs(call('ZRANGEBYSCORE', keys.ends, first, '+inf', 'LIMIT', '0', '2')) do
    if other ~= name then
      local start = call('ZSCORE', keys.services, other)
      if start and tonumber(start) <= last then return other, start .. '-' .. call('ZSCORE', keys.ends, other) end
      break
    end
  end
  local skip = 0 -- ranges of the service itself
  while true do
    local member = call('ZREVRANGEBYSCORE', keys.ranges, last, '-inf', 'LIMIT', skip, '1')[1]
    if not member then return nil end
    local other, range, stop = string.match(member, '^(%S+) (%d+%-(%d+))')
    if other ~= name and not call('ZSCORE', keys.services, other) then
      call('ZREM', keys.ranges, member) -- a server that knows no `ranges` has removed the service
    elseif tonumber(stop) < first then
      return nil
    elseif other ~= name then
      return other, range
    else
      skip = skip + 1
    end
  end
end

-- Forgets which ranges a service had.
local function forget_ranges(keys, name, ranges)
  call('ZREM', keys.services, name)
  call('ZREM', keys.ends, name)
  if #ranges < 2 then return end
  local members = {}
  for i, range in ipairs(ranges) do members[i] = string.format('%s %d-%d', name, range[1], range[2]) end
  call('ZREM', keys.ranges, unpack(members))
end

-- Writes which ranges a service has, in place of those that it had: {} of a new one.
local function set_ranges(keys, name, old, ranges)
  forget_ranges(keys, name, old)
  call('ZADD', keys.services, ranges[1][1], name)
  if #ranges == 1 then call('ZADD', keys.ends, ranges[1][2], name) end
  for i = 1, #ranges > 1 and #ranges or 0 do
    local range = ranges[i]
    call('ZADD', keys.ranges, range[1], string.format('%s %d-%d', name, range[1], range[2]))
  end
end

-- The text of the ranges of a service as the pool has them.
local function ranges_in_pool(keys, name, ranges)
  local start, stop, parts = call('ZSCORE', keys.services, name), call('ZSCORE', keys.ends, name), {}
  if stop or not start then return tostring(start) .. '-' .. tostring(stop) end
  for _, range in ipairs(ranges) do
    local member = string.format('%d-%d', range[1], range[2])
    local score = call('ZSCORE', keys.ranges, name .. ' ' .. member)
    if score and tonumber(score) == range[1] then parts[#parts + 1] = member end
  end
  if tonumber(start) ~= ranges[1][1] then parts[1] = 'those from ' .. start end
  return table.concat(parts, ',')
end
