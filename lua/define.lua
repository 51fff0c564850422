-- Defines a service, or changes the range and description of one.
--
-- KEYS   service HASH, services ZSET, ends ZSET, free ZSET, names HASH, offers HASH, ports HASH
-- ARGV   service, description, start, end, '1' if the service may exist already
--
-- answer {service as of describe.lua, 1}  a new service
--        {service as of describe.lua, 0}  changed
-- errors SERVICE_EXISTS, RANGE_OVERLAP, RANGE_IN_USE
--
-- A new range costs the same whatever its size. Of a range that is cut, each port that was ever handed out and now
-- falls outside is looked at.
local service_key, services, ends, free = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local names, offers, ports = KEYS[5], KEYS[6], KEYS[7]
local service, description, start, stop, may_exist = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local first, last = tonumber(start), tonumber(stop)
local call = redis.call
local chunk = 1000 -- ports in one command: unpack has its limits, 7,000 in the smaller of the two stores

local function span(from, to) return string.format('%d-%d', from, to) end

local was = call('HMGET', service_key, 'start', 'end', 'fresh')
local exists = was[1]
if exists and may_exist ~= '1' then
  return redis.error_reply('SERVICE_EXISTS ' .. service .. ' is ' .. was[1] .. '-' .. was[2])
end

-- Ranges never overlap, so of those that start at or before our end the last is the only one that can reach into ours.
for _, other in ipairs(call('ZREVRANGEBYSCORE', services, last, '-inf', 'LIMIT', '0', '2')) do
  if other ~= service then
    local other_end = call('ZSCORE', ends, other)
    if tonumber(other_end) >= first then
      return redis.error_reply('RANGE_OVERLAP the range of ' .. other .. ' is ' ..
        call('ZSCORE', services, other) .. '-' .. other_end)
    end
    break
  end
end

-- The ports never handed out, as spans 'from-to': those of before that stay, and those that are new to the service.
local spans = {}
local function add(from, to)
  from, to = math.max(from, first), math.min(to, last)
  if from <= to then spans[#spans + 1] = {from, to} end
end
-- Those that were handed out and now fall outside.
local cut = {}
local function cut_off(from, to)
  for port = from, to do
    if port < first or port > last then cut[#cut + 1] = string.format('%d', port) end
  end
end

if exists then
  local old_first, old_last = tonumber(was[1]), tonumber(was[2])
  add(first, old_first - 1)
  local seen = old_first
  for from, to in string.gmatch(was[3], '(%d+)%-(%d+)') do
    add(tonumber(from), tonumber(to))
    cut_off(seen, from - 1)
    seen = to + 1
  end
  cut_off(seen, old_last)
  add(old_last + 1, last)
else
  add(first, last)
end

for i = 1, #cut, chunk do
  local some = {unpack(cut, i, math.min(i + chunk - 1, #cut))}
  local allocations = call('HMGET', ports, unpack(some))
  local free_from = call('ZMSCORE', free, unpack(some))
  for j, port in ipairs(some) do
    if allocations[j] then return redis.error_reply('RANGE_IN_USE port ' .. port .. ' is allocated') end
    if tonumber(free_from[j]) > tonumber(now) then return redis.error_reply('RANGE_IN_USE port ' .. port .. ' is on offer') end
  end
end

-- Nothing forbids it. What is left at a port that is cut off is an offer that ran out, and the name it was for.
for i = 1, #cut, chunk do
  local some = {unpack(cut, i, math.min(i + chunk - 1, #cut))}
  for _, record in ipairs(call('HMGET', offers, unpack(some))) do
    if record then call('HDEL', names, string.match(record, '"name":"([^"]+)"')) end
  end
  call('HDEL', offers, unpack(some))
  call('ZREM', free, unpack(some))
end

local fresh = {}
for _, s in ipairs(spans) do
  local before = fresh[#fresh]
  if before and before[2] + 1 == s[1] then
    before[2] = s[2]
  else
    fresh[#fresh + 1] = s
  end
end
for i, s in ipairs(fresh) do
  fresh[i] = span(s[1], s[2])
end

call('HSET', service_key, 'description', description, 'start', start, 'end', stop, 'fresh', table.concat(fresh, ' '))
call('HSETNX', service_key, 'created', now)
call('ZADD', services, start, service)
call('ZADD', ends, stop, service)
return {describe(service_key, free, ports), exists and 0 or 1}
