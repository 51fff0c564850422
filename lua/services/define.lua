-- Defines a service, or changes the range, description and cooldown of one.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, rest HASH, waitlist ZSET, heartbeats ZSET, waitlists ZSET, services ZSET, ends ZSET,
--        events STREAM, labels HASH
-- ARGV   events, request, service, description, start, end, cooldown (ms), '1' if the service may exist already, how
--        many services the pool may have
--
-- answer {service as of parts/services/describe.lua, 1 if it is new, 1 if settle.lua must be called until it is done}
--        0  nothing was changed yet: it looked at some 250 ports; call it again
-- errors SERVICE_EXISTS, RANGE_OVERLAP, RANGE_IN_USE, LIMIT_REACHED
--
-- If ports leave the range, it looks at the ports that are held, some 250 in a script. It records in `changing` what is
-- left to do then, and settle.lua does it. Worst case: ports that cool down after leases that ended: about 1.9 ms (an
-- offer takes 10 us). A refusal if 250 ports or fewer are held: 20 us.
local call = redis.call
-- include clock: read_clock
-- include full_redis: stop_if_full
-- include history: add_change, resume_history
-- include resting: rest_cooling, settle_rest
-- include runs: run_of
-- include service: free_before_of, is_changing, read_service
-- include services/describe: describe
-- include services/held_ports: first_held, held_outside, scan_held
-- include services/settle_range: settle_range
-- include waitlist: notify_of_ports

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], rest = KEYS[10], waitlist = KEYS[11], heartbeats = KEYS[12],
  waitlists = KEYS[13], services = KEYS[14], ends = KEYS[15], events = KEYS[16],
  labels = KEYS[17],
}
local name, description, start, stop, cooldown, may_exist, most = unpack(ARGV, 3)
local first, last = tonumber(start), tonumber(stop)
local now = read_clock()
local service = read_service(keys, now, name)

local old_start, old_stop, old_description = unpack(call('HMGET', keys.service, 'start', 'end', 'description'))
local exists = old_start
if exists and may_exist ~= '1' then
  return redis.error_reply('SERVICE_EXISTS ' .. name .. ' is ' .. old_start .. '-' .. old_stop)
end
if not exists and call('ZCARD', keys.services) >= tonumber(most) then
  return redis.error_reply('LIMIT_REACHED the pool has ' .. most .. ' services, and may have no more')
end

-- Ranges never overlap: of those that start before the end of the new one, only the last can reach into it.
for _, other in ipairs(call('ZREVRANGEBYSCORE', keys.services, last, '-inf', 'LIMIT', '0', '2')) do
  if other ~= name then
    local other_end = call('ZSCORE', keys.ends, other)
    if tonumber(other_end) >= first then
      return redis.error_reply('RANGE_OVERLAP the range of ' .. other .. ' is ' ..
        call('ZSCORE', keys.services, other) .. '-' .. other_end)
    end
    break
  end
end

-- The ports that leave the range and those that join it, as pairs of first and last.
local leaving, joining = {}, {}
local function add_range(to, from, till)
  if from <= till then to[#to + 1] = {from, till} end
end
if exists then
  local old_first, old_last = tonumber(old_start), tonumber(old_stop)
  add_range(leaving, old_first, math.min(old_last, first - 1))
  add_range(leaving, math.max(old_first, last + 1), old_last)
  add_range(joining, first, math.min(last, old_first - 1))
  add_range(joining, math.max(first, old_last + 1), last)
else
  add_range(joining, first, last)
end

-- The ports that leave the range; nil if they are more than 250.
local function few_leaving()
  local all = {}
  for _, range in ipairs(leaving) do
    if #all + range[2] - range[1] + 1 > 250 then return nil end
    for port = range[1], range[2] do all[#all + 1] = string.format('%d', port) end
  end
  return all
end

-- Whether all ports that leave the range were never handed out.
local function are_fresh()
  for _, range in ipairs(leaving) do
    local run_first, run_last = run_of(keys, range[1])
    if not run_first or run_last < range[2] then return false end
  end
  return true
end

-- Says in words which port that leaves the range is held, nil if none is, and whether that is known yet. How far the
-- search has come is in `changing`, as 'narrow FIRST LAST AT UNTIL': every call that defines this range goes on from
-- there. A script that grants a port outside of the range ends the search, as does the time UNTIL.
local function held_leaving()
  local few = few_leaving()
  if few then return first_held(keys, now, few), true end
  local changing, search = service.changing, 'narrow ' .. start .. ' ' .. stop .. ' '
  local at = changing and string.sub(changing, 1, #search) == search and string.match(changing, '^%w+', #search + 1)
  local other = not at and changing and string.match(changing, '^narrow .* (%d+)$')
  local left = other and other - now
  if left and left > 0 and left <= 5000 then return nil, false end -- the search for another range goes on
  if not at then
    local held, are_all = held_outside(keys, now, first, last)
    if held or are_all then return held, true end
    at = 'o0'
  end
  local held, next_at
  if at ~= 'done' then held, next_at = scan_held(keys, now, first, last, at) end
  call('HSET', keys.service, 'changing', string.format('%s%s %d', search, next_at or 'done', now + 5000))
  return held, not next_at
end

stop_if_full(keys)
if exists then
  if is_changing(service) then
    settle_range(keys, service, 250)
    return 0
  end
  if not settle_rest(keys, service) then return 0 end
  if #leaving > 0 and not are_fresh() then
    local held, is_known = held_leaving()
    if held then
      call('HDEL', keys.service, 'changing')
      return redis.error_reply('RANGE_IN_USE ' .. held)
    end
    if not is_known or not rest_cooling(keys, service) then return 0 end
  elseif tonumber(cooldown) < tonumber(service.cooldown) and not rest_cooling(keys, service) then
    return 0
  end
end

local changes = {}
for _, range in ipairs(leaving) do changes[#changes + 1] = string.format('drop %d %d', range[1], range[2]) end
for _, range in ipairs(joining) do changes[#changes + 1] = string.format('add %d %d', range[1], range[2]) end
service.changing = #changes > 0 and table.concat(changes, ' ')
if service.changing then
  call('HSET', keys.service, 'changing', service.changing)
else
  call('HDEL', keys.service, 'changing')
end
call('HSET', keys.service, 'description', description, 'start', start, 'end', stop, 'cooldown', cooldown)
call('HSETNX', keys.service, 'created', now)
call('ZADD', keys.services, start, name)
call('ZADD', keys.ends, stop, name)
if not exists then
  resume_history(keys.events)
  add_change(keys.events, 'defined', 'start', start, 'end', stop)
elseif #changes > 0 or description ~= old_description or cooldown ~= service.cooldown then
  add_change(keys.events, 'changed', 'start', start, 'end', stop)
end
local is_settled = settle_range(keys, service, 50)
if service.waiting then
  service.cooldown, service.free_before = cooldown, free_before_of(now, cooldown)
  notify_of_ports(keys, service, math.huge)
end
return {describe(keys, now), exists and 0 or 1, is_settled and 0 or 1}
