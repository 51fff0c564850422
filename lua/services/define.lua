-- Defines a service, or changes the ranges, description and cooldown of one.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, rest HASH, waitlist ZSET, heartbeats ZSET, waitlists ZSET, services ZSET, ends ZSET,
--        events STREAM, ranges ZSET, labels HASH, last HASH
-- ARGV   events, request, service, description, ranges ('5000-5099,7000-7099': 1 to 32), cooldown (ms), '1' if the
--        service may exist already, how many services the pool may have, 'name' if it picks ports by name, or '', its
--        default and longest lease as of parts/lease_bounds.lua ('': neither), '1' if held ports that leave the ranges
--        drain; then fields of the service and the values that they must have ('': none)
--
-- answer {service as of parts/services/describe.lua, 1 if it is new, 1 if settle.lua must be called until it is done}
--        0  nothing was changed yet: it looked at some 250 ports; call it again
--        1  nothing was changed: a field has another value
--        {service, range}  nothing was changed: ports of this range drain in another service; settle.lua, called for
--           that one, says by the next call of this script whether they still do
-- errors SERVICE_EXISTS, RANGE_OVERLAP, RANGE_IN_USE, LIMIT_REACHED
--
-- If ports leave the ranges, it looks at the ports that are held, some 250 in a script. It records in `changing` what
-- is left to do then, and settle.lua does it. Worst case: ports that cool down after leases that ended: about 1.9 ms,
-- with a history 2.3 ms (an offer takes 10 us). A refusal if 250 ports or fewer are held: 20 us.
local call = redis.call
-- include clock: read_clock
-- include drains: parse_drains, set_drains
-- include full_redis: stop_if_full
-- include history: add_change, resume_history
-- include ranges: join_ranges, parse_ranges, ranges_of, subtract, text_of
-- include resting: rest_cooling, settle_rest
-- include runs: run_of
-- include service: free_before_of, is_changing, read_service
-- include services/describe: describe
-- include services/drain: settle_drains
-- include services/held_ports: first_held, held_within, scan_held
-- include services/overlaps: overlap_of, pool_ranges, set_ranges
-- include services/settle_range: settle_range
-- include waitlist: notify_of_ports

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], rest = KEYS[10], waitlist = KEYS[11], heartbeats = KEYS[12],
  waitlists = KEYS[13], services = KEYS[14], ends = KEYS[15], events = KEYS[16], ranges = KEYS[17],
  labels = KEYS[18], last = KEYS[19],
}
local name, description, text, cooldown, may_exist, most, pick, lease_bounds, drain = unpack(ARGV, 3, 11)
local ranges = parse_ranges(text)
local several = #ranges > 1 and text
local start, stop = string.match(text, '^%d+'), string.match(text, '%d+$')
local now = read_clock()
local service = read_service(keys, now, name)

for i = 12, #ARGV, 2 do
  if (call('HGET', keys.service, ARGV[i]) or '') ~= ARGV[i + 1] then return 1 end
end
local old_start, old_stop, old_several, old_description, old_pick =
  unpack(call('HMGET', keys.service, 'start', 'end', 'ranges', 'description', 'pick'))
local exists = old_start
local old_ranges = exists and ranges_of(old_start, old_stop, old_several) or {}
if exists and may_exist ~= '1' then
  return redis.error_reply('SERVICE_EXISTS ' .. name .. ' is ' .. text_of(old_ranges))
end
if not exists and call('ZCARD', keys.services) >= tonumber(most) then
  return redis.error_reply('LIMIT_REACHED the pool has ' .. most .. ' services, and may have no more')
end
for _, range in ipairs(ranges) do
  local other, others, drains = overlap_of(keys, name, range[1], range[2])
  if drains then return {other, others} end
  if other then return redis.error_reply('RANGE_OVERLAP the range of ' .. other .. ' is ' .. others) end
end
-- The ports that leave the ranges and those that join them.
local leaving, joining = subtract(old_ranges, ranges), subtract(ranges, old_ranges)

-- The ports that leave the ranges; nil if they are more than 250.
local function few_leaving()
  local all = {}
  for _, range in ipairs(leaving) do
    if #all + range[2] - range[1] + 1 > 250 then return nil end
    for port = range[1], range[2] do all[#all + 1] = string.format('%d', port) end
  end
  return all
end

-- Whether all ports that leave the ranges were never handed out.
local function are_fresh()
  for _, range in ipairs(leaving) do
    local run_first, run_last = run_of(keys, range[1])
    if not run_first or run_last < range[2] then return false end
  end
  return true
end

-- Says in words which port that leaves the ranges is held, nil if none is, and whether that is known yet. How far the
-- search has come is in `changing`, as 'narrow FIRST LAST AT UNTIL' and, of several ranges, their text: every call that
-- defines these ranges goes on from there. A script that grants a port outside of them ends the search, as does the
-- time UNTIL.
local function held_leaving()
  local few = few_leaving()
  if few then return first_held(keys, now, few), true end
  local first, last, at, until_then, of =
    string.match(service.changing or '', '^narrow (%d+) (%d+) (%w+) (%d+) ?(.*)$')
  if first ~= start or last ~= stop or of ~= (several or '') then
    local left = until_then and until_then - now
    if left and left > 0 and left <= 5000 then return nil, false end -- the search for other ranges goes on
    local held, are_all = held_within(keys, now, leaving)
    if held or are_all then return held, true end
    at = 'o0'
  end
  local held, next_at
  if at ~= 'done' then held, next_at = scan_held(keys, now, leaving, at) end
  local search = {'narrow', start, stop, next_at or 'done', string.format('%d', now + 5000), several or nil}
  call('HSET', keys.service, 'changing', table.concat(search, ' '))
  return held, not next_at
end

-- The ranges that drain, and those that do so from now on.
local function ranges_draining()
  local _, _, draining = parse_drains(service.drains)
  local left = subtract(draining, ranges)
  return draining, drain == '1' and join_ranges(left, leaving) or left
end

local _, would_drain = ranges_draining()
if #would_drain > 64 then
  return redis.error_reply('RANGE_IN_USE ' .. #would_drain .. ' ranges would drain; at most 64 may')
end
stop_if_full(keys)
if exists then
  if is_changing(service) then
    settle_range(keys, service, 250)
    return 0
  end
  if not settle_rest(keys, service) or not settle_drains(keys, service) then return 0 end
  if #leaving > 0 and not are_fresh() then
    local held, is_known
    if drain ~= '1' then held, is_known = held_leaving() else is_known = true end
    if held then
      call('HDEL', keys.service, 'changing')
      return redis.error_reply('RANGE_IN_USE ' .. held)
    end
    if not is_known or not rest_cooling(keys, service) then return 0 end
  elseif tonumber(cooldown) < tonumber(service.cooldown) and not rest_cooling(keys, service) then
    return 0
  end
end

local old_draining, draining = ranges_draining()
-- What is left to do. Ports that drain are counted anew each time that the ranges change.
local changes = {}
local function add_changes(op, some)
  for _, range in ipairs(some) do changes[#changes + 1] = string.format('%s %d %d', op, range[1], range[2]) end
end
if drain ~= '1' then add_changes('drop', leaving) end
local is_other = #leaving + #joining > 0
if drain == '1' or is_other then add_changes('drop*', draining) end
local added = subtract(joining, old_draining)
add_changes('add*', subtract(joining, added))
add_changes('add', added)
service.changing = #changes > 0 and table.concat(changes, ' ')
if service.changing then
  call('HSET', keys.service, 'changing', service.changing)
else
  call('HDEL', keys.service, 'changing')
end
call('HSET', keys.service, 'description', description, 'start', start, 'end', stop, 'cooldown', cooldown)
if several then
  call('HSET', keys.service, 'ranges', several)
elseif old_several then
  call('HDEL', keys.service, 'ranges')
end
if pick ~= '' then call('HSET', keys.service, 'pick', pick) else call('HDEL', keys.service, 'pick') end
local is_other_pick = pick ~= (old_pick or '')
if is_other_pick then call('UNLINK', keys.last) end -- it is only kept while the service picks by name
if lease_bounds ~= '' then
  call('HSET', keys.service, 'lease_bounds', lease_bounds)
elseif service.lease_bounds then
  call('HDEL', keys.service, 'lease_bounds')
end
call('HSETNX', keys.service, 'created', now)
if #draining == 0 and service.drains then
  call('HDEL', keys.service, 'drains')
  service.drains = nil
elseif #draining > 0 and (drain == '1' or is_other) then
  set_drains(keys, service, 0, now, draining)
end
set_ranges(keys, name, pool_ranges(old_ranges, old_draining), pool_ranges(ranges, draining))
local span = {'start', start, 'end', stop}
if several then span[5], span[6] = 'ranges', several end
if not exists then
  resume_history(keys.events)
  add_change(keys.events, 'defined', unpack(span))
elseif is_other or description ~= old_description or cooldown ~= service.cooldown or is_other_pick
  or lease_bounds ~= (service.lease_bounds or '') then
  add_change(keys.events, 'changed', unpack(span))
end
local is_settled = settle_range(keys, service, 50) and not service.drains
if service.waiting then
  service.cooldown, service.free_before = cooldown, free_before_of(now, cooldown)
  notify_of_ports(keys, service, math.huge)
end
return {describe(keys, now), exists and 0 or 1, is_settled and 0 or 1}
