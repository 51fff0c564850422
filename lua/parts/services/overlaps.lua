local call = redis.call
-- include drains: parse_drains
-- include ranges: ranges_of

-- The ranges of a pool, none of which overlaps another. A service with one range is in `services`, scored by its start,
-- and in `ends`, scored by its end. A service with several is in `services` as well, scored by the first of its ports,
-- but not in `ends`: each of its ranges is in `ranges`, as 'SERVICE FIRST-LAST', scored by the first. Ranges that have
-- left a service and still drain are there as well, as 'SERVICE FIRST-LAST drains'.

-- The ranges of a service as the pool has them: its own, and those that drain; in their order.
local function pool_ranges(own, draining)
  if #draining == 0 then return own end
  local all = {}
  for _, range in ipairs(own) do all[#all + 1] = range end
  for _, range in ipairs(draining) do all[#all + 1] = {range[1], range[2], drains = true} end
  table.sort(all, function(a, b) return a[1] < b[1] end)
  return all
end

-- Reads the ranges of a service as the pool has them. Also returns its own, and those that drain.
local function read_pool_ranges(keys)
  local start, stop, several, drains = unpack(call('HMGET', keys.service, 'start', 'end', 'ranges', 'drains'))
  if not start then return nil end
  local own, _, _, draining = ranges_of(start, stop, several), parse_drains(drains)
  return pool_ranges(own, draining), own, draining
end

-- What `ranges` has of a range.
local function member_of(name, range)
  return string.format('%s %d-%d', name, range[1], range[2]) .. (range.drains and ' drains' or '')
end

-- Says which other service has one of the ports first-last, in which range, and whether that drains; nil if none has.
-- Neighbours tell:
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
    local other, range, stop, drains = string.match(member, '^(%S+) (%d+%-(%d+))(.*)$')
    if other ~= name and not call('ZSCORE', keys.services, other) then
      call('ZREM', keys.ranges, member) -- a server that knows no `ranges` has removed the service
    elseif tonumber(stop) < first then
      return nil
    elseif other ~= name then
      return other, range, drains ~= ''
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
  for i, range in ipairs(ranges) do members[i] = member_of(name, range) end
  call('ZREM', keys.ranges, unpack(members))
end

-- Writes which ranges a service has, in place of those that it had: {} of a new one.
local function set_ranges(keys, name, old, ranges)
  forget_ranges(keys, name, old)
  call('ZADD', keys.services, ranges[1][1], name)
  if #ranges == 1 then call('ZADD', keys.ends, ranges[1][2], name) end
  for i = 1, #ranges > 1 and #ranges or 0 do
    call('ZADD', keys.ranges, ranges[i][1], member_of(name, ranges[i]))
  end
end

-- The text of the ranges of a service as the pool has them.
local function ranges_in_pool(keys, name, ranges)
  local start, stop, parts = call('ZSCORE', keys.services, name), call('ZSCORE', keys.ends, name), {}
  if stop or not start then return tostring(start) .. '-' .. tostring(stop) end
  for _, range in ipairs(ranges) do
    local score = call('ZSCORE', keys.ranges, member_of(name, range))
    if score and tonumber(score) == range[1] then parts[#parts + 1] = string.format('%d-%d', range[1], range[2]) end
  end
  if tonumber(start) ~= ranges[1][1] then parts[1] = 'those from ' .. start end
  return table.concat(parts, ',')
end
