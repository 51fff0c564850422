-- Defines a service, or changes the range, description and cool-down of one.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        rest HASH, waitlist ZSET, heartbeats ZSET, waitlists ZSET, services ZSET, ends ZSET
-- ARGV   service, description, start, end, cool-down (ms), '1' if the service may exist already, how many services the pool
--        may have
--
-- answer {service as of parts/describe.lua, 1 where it is new, 1 where settle.lua has to be called until it is done}
--        0  nothing is changed yet: it has looked at some 250 ports, and is to be called again
-- errors SERVICE_EXISTS, RANGE_OVERLAP, RANGE_IN_USE, LIMIT_REACHED
--
-- Of a range that is cut it looks at what is held, some 250 in a script. What is left to be done then, in ports that were handed
-- out before, stands in `changing`, and settle.lua does it. At worst, ports that cool down after leases that ran out: about
-- 1.9 ms where an offer takes 10 us. A refusal where 250 or fewer are held: 20 us.
local call = redis.call
-- include clock: read_clock
-- include services/describe: describe
-- include services/held_ports: first_held, held_outside, scan_held
-- include resting: put_to_rest, settle_rest
-- include runs: run_of
-- include service: free_before_of, read_service
-- include services/settle_range: settle_range
-- include waitlist: notify_of_ports

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], rest = KEYS[10], waitlist = KEYS[11], heartbeats = KEYS[12],
  waitlists = KEYS[13], services = KEYS[14], ends = KEYS[15],
}
local description, start, stop, new_cooldown, may_exist, most = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local first, last = tonumber(start), tonumber(stop)
local now = read_clock()
local service = read_service(keys, now, ARGV[1])

local was = call('HMGET', keys.service, 'start', 'end')
local exists = was[1]
if exists and may_exist ~= '1' then
  return redis.error_reply('SERVICE_EXISTS ' .. service.name .. ' is ' .. was[1] .. '-' .. was[2])
end
if not exists and call('ZCARD', keys.services) >= tonumber(most) then
  return redis.error_reply('LIMIT_REACHED the pool has ' .. most .. ' services, and may have no more')
end

-- Ranges never overlap, so of those that start at or before our end the last is the only one that can reach into ours.
for _, other in ipairs(call('ZREVRANGEBYSCORE', keys.services, last, '-inf', 'LIMIT', '0', '2')) do
  if other ~= service.name then
    local other_end = call('ZSCORE', keys.ends, other)
    if tonumber(other_end) >= first then
      return redis.error_reply('RANGE_OVERLAP the range of ' .. other .. ' is ' ..
        call('ZSCORE', keys.services, other) .. '-' .. other_end)
    end
    break
  end
end

-- The parts of the range that was which fall out, as pairs of ends.
local old_first, old_last = tonumber(was[1]), tonumber(was[2])
local cut = {}
if exists then
  if old_first < first then cut[#cut + 1] = {old_first, math.min(old_last, first - 1)} end
  if old_last > last then cut[#cut + 1] = {math.max(old_first, last + 1), old_last} end
end

-- The ports that fall out, where they are few: nil for more than 250.
local function few_cut()
  local all = {}
  for _, part in ipairs(cut) do
    if #all + part[2] - part[1] + 1 > 250 then return nil end
    for port = part[1], part[2] do all[#all + 1] = string.format('%d', port) end
  end
  return all
end

-- Whether all ports that fall out were never handed out, which is told at once.
local function is_fresh()
  for _, part in ipairs(cut) do
    local run_first, run_last = run_of(keys, part[1])
    if not run_first or run_last < part[2] then return false end
  end
  return true
end

-- Why the range cannot be cut, in words, and whether it is known yet. How far it has looked stands in `changing`, so that all who
-- would cut it so go on from there. Whoever is given a port outside takes it away, and then it begins anew.
local function cannot_cut()
  local few = few_cut()
  if few then return first_held(keys, now, few), true end
  local changing, looks = service.changing, 'narrow ' .. start .. ' ' .. stop .. ' '
  local at = changing and string.sub(changing, 1, #looks) == looks and string.match(changing, '^%w+', #looks + 1)
  local others = not at and changing and string.match(changing, '^narrow .* (%d+)$')
  local left = others and others - now
  if left and left > 0 and left <= 5000 then return nil, false end -- they go first
  if not at then
    local held, are_all = held_outside(keys, now, first, last)
    if held or are_all then return held, true end
    at = 'o0'
  end
  local held, next_at
  if at ~= 'done' then held, next_at = scan_held(keys, now, first, last, at) end
  call('HSET', keys.service, 'changing', string.format('%s%s %d', looks, next_at or 'done', now + 5000))
  return held, not next_at
end

-- If Redis is full this refuses the script before its first change, and nothing after it; see grant.
call('ZADD', keys.free, 'XX', '0', '')
if exists then
  if service.changing and string.sub(service.changing, 1, 6) ~= 'narrow' then
    settle_range(keys, service, 250)
    return 0
  end
  if not settle_rest(keys, service) then return 0 end
  if #cut > 0 and not is_fresh() then
    local held, is_known = cannot_cut()
    if held then
      call('HDEL', keys.service, 'changing')
      return redis.error_reply('RANGE_IN_USE ' .. held)
    end
    if not is_known or not put_to_rest(keys, service) then return 0 end
  elseif tonumber(new_cooldown) < tonumber(service.cooldown) and not put_to_rest(keys, service) then
    return 0
  end
end

local todo = {}
local function add(op, from, to)
  if from <= to then todo[#todo + 1] = string.format('%s %d %d', op, from, to) end
end
for _, part in ipairs(cut) do add('drop', part[1], part[2]) end
if not exists then
  add('add', first, last)
else
  add('add', first, math.min(last, old_first - 1))
  add('add', math.max(first, old_last + 1), last)
end
service.changing = #todo > 0 and table.concat(todo, ' ')
if service.changing then
  call('HSET', keys.service, 'changing', service.changing)
else
  call('HDEL', keys.service, 'changing')
end
call('HSET', keys.service, 'description', description, 'start', start, 'end', stop, 'cooldown', new_cooldown)
call('HSETNX', keys.service, 'created', now)
call('ZADD', keys.services, start, service.name)
call('ZADD', keys.ends, stop, service.name)
local settled = settle_range(keys, service, 50)
if service.waiting then
  service.cooldown, service.free_before = new_cooldown, free_before_of(now, new_cooldown)
  notify_of_ports(keys, service, math.huge)
end
return {describe(keys, now), exists and 0 or 1, settled and 0 or 1}
