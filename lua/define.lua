-- Defines a service, or changes the range, description and cool-down of one.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, quarantine ZSET, beats ZSET, services ZSET, ends ZSET,
--        fresh ZSET, room ZSET, names HASH, offers HASH
-- ARGV   service, description, start, end, cool-down (ms), '1' if the service may exist already
--
-- answer {service as of describe.lua, 1}  a new service
--        {service as of describe.lua, 0}  changed
-- errors SERVICE_EXISTS, RANGE_OVERLAP, RANGE_IN_USE
--
-- A new range costs the same whatever its size. Of a range that is cut, each port that was ever handed out and now
-- falls outside is looked at.
local service_key, free, ports, leases, quarantine, beats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local services, ends, fresh, room, names, offers = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local service, description, start, stop, cooldown, may_exist = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local first, last = tonumber(start), tonumber(stop)
local call = redis.call
local chunk = 1000 -- ports in one command: unpack has its limits, 7,000 in the smaller of the two stores
-- include clock
-- include clear
-- include runs
-- include describe

local was = call('HMGET', service_key, 'start', 'end')
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

-- What falls outside of the new range: the runs of ports never handed out, and the ports between them, which were.
local runs, cut = {}, {}
local function cut_off(from, to)
  if from > to then return end
  local next_port = from
  local around = call('ZREVRANGEBYSCORE', fresh, from, '-inf', 'WITHSCORES', 'LIMIT', '0', '1')
  local above = call('ZRANGEBYSCORE', fresh, '(' .. from, to, 'WITHSCORES')
  for _, some in ipairs({around, above}) do
    for i = 1, #some, 2 do
      local run = {tonumber(some[i + 1]), tonumber(some[i])}
      if run[2] >= from then
        runs[#runs + 1] = run
        for port = next_port, run[1] - 1 do cut[#cut + 1] = string.format('%d', port) end
        next_port = run[2] + 1
      end
    end
  end
  for port = next_port, to do cut[#cut + 1] = string.format('%d', port) end
end

local old_first, old_last = tonumber(was[1]), tonumber(was[2])
if exists then
  cut_off(old_first, math.min(old_last, first - 1))
  cut_off(math.max(old_first, last + 1), old_last)
end

for i = 1, #cut, chunk do
  local some = {unpack(cut, i, math.min(i + chunk - 1, #cut))}
  local free_from = call('ZMSCORE', free, unpack(some))
  local out = call('ZMSCORE', quarantine, unpack(some))
  for j, port in ipairs(some) do
    if not free_from[j] then return redis.error_reply('RANGE_IN_USE port ' .. port .. ' is allocated') end
    if tonumber(free_from[j]) > tonumber(now) and free_from[j] ~= out[j] then
      local leased = call('HGET', offers, port) == 'leased'
      return redis.error_reply('RANGE_IN_USE port ' .. port .. (leased and ' is allocated' or ' is on offer'))
    end
  end
end

-- Nothing forbids it. What is left at a port that is cut off is a hold that ran out, and the name it was for.
for i = 1, #cut, chunk do
  local some = {unpack(cut, i, math.min(i + chunk - 1, #cut))}
  for j, record in ipairs(call('HMGET', offers, unpack(some))) do
    if record then clear(some[j]) end
  end
  call('ZREM', free, unpack(some))
  call('ZREM', quarantine, unpack(some))
end
for _, run in ipairs(runs) do
  drop_run(string.format('%d', run[2]))
  if run[1] < first and run[2] >= first then set_run(first, math.min(run[2], last)) end
  if run[1] >= first and run[1] <= last then set_run(run[1], last) end
end
if not exists then
  add_run(first, last)
else
  if first < old_first then add_run(first, math.min(last, old_first - 1)) end
  if last > old_last then add_run(math.max(first, old_last + 1), last) end
end

call('HSET', service_key, 'description', description, 'start', start, 'end', stop, 'cooldown', cooldown)
call('HSETNX', service_key, 'created', now)
call('ZADD', services, start, service)
call('ZADD', ends, stop, service)
return {describe(), exists and 0 or 1}
