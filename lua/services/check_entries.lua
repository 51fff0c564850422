-- Looks for entries of one key of a service that stand for nothing, and removes them if it is to repair.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, waitlist ZSET, waitlists ZSET, services ZSET, ends ZSET, ranges ZSET,
--        labels HASH, last HASH; of an owner: owned ZSET
-- ARGV   the name of the key, 'service' for what the service says of its keys, or 'drains' for how many ports drain;
--        the cursor of the scan ('0': start), or of 'drains' how many check_ports.lua has found, and what it said:
--        'FOUND COUNT RANGES'; '1' to repair; of an owner: owner
--
-- answer {cursor, findings}  the cursor of the next call, '0' after the last; findings as of check_ports.lua
--        0                   settle.lua is to be called until it is done, and then this once more
-- errors SERVICE_NOT_FOUND
--
-- At worst some 250 entries, each to be removed: about 1 ms where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock
-- include drains: said_of, set_drains
-- include labels: labels_of
-- include ranges: have_all, text_of
-- include record: count_of, is_first_port, is_live, name_of, owner_of
-- include runs: drop_run, set_run
-- include service: is_changing, no_service, read_service
-- include services/overlaps: forget_ranges, overlap_of, ranges_in_pool, read_pool_ranges
-- include services/report: begin_report
-- include waitlist: leave

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], waitlist = KEYS[10], waitlists = KEYS[11], services = KEYS[12],
  ends = KEYS[13], ranges = KEYS[14], labels = KEYS[15], last = KEYS[16], owned = KEYS[17],
}
local kind, cursor, repairs, owner = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local now = read_clock()
local service = read_service(keys, now, string.match(keys.service, ':service:(.*)$'))
local ranges, own, draining = read_pool_ranges(keys)
local key, findings = keys[kind], {}

local report = begin_report(keys, findings, repairs)

if not service.cooldown then
  if kind == 'service' and call('ZSCORE', keys.services, service.name) then
    report('service_missing', service.name, 'the pool lists the service, and there is none', function()
      forget_ranges(keys, service.name, {})
    end)
    return {'0', findings}
  end
  return redis.error_reply(no_service(service.name))
end
if is_changing(service) then return 0 end

local function is_in_range(port)
  return string.find(port, '^%d+$') and have_all(ranges, tonumber(port), tonumber(port))
end

local function check_labels(port)
  local allocation, offer = call('HGET', keys.ports, port), call('HGET', keys.offers, port)
  if allocation and labels_of(keys, port, allocation) or offer and labels_of(keys, port, offer) then return end
  report('labels_of_nobody', port, 'the port has labels, and no record of it has them', function()
    call('HDEL', keys.labels, port)
  end)
end

local function check_last(port, entry)
  if service.by_name and is_in_range(port) and string.find(entry, '^%d+ %S') then return end
  report('last_of_nothing', port, 'the last holder of the port is known, and the service needs none', function()
    call('HDEL', keys.last, port)
  end)
end

local function check_name(name, port)
  local offer, allocation = call('HGET', keys.offers, port), call('HGET', keys.ports, port)
  local is_offered = offer and name_of(offer) == name
  if is_offered or allocation and name_of(allocation) == name then return end
  report('name_of_nobody', name, 'the name is said to have port ' .. port .. ', and has no record there', function()
    call('HDEL', keys.names, name)
  end)
end

local function check_hash_port(port, record)
  if is_in_range(port) then return end
  if is_first_port(record) or record == 'leased' or not is_live(record, now) then
    return report('outside', port, kind .. ' has a port that is not of the service', function()
      call('HDEL', key, port)
    end)
  end
  report('outside', port, (name_of(record) or 'somebody') .. ' has a port in ' .. kind .. ' that is not of the service')
end

local function check_set_port(port)
  if is_in_range(port) then return end
  report('outside', port, kind .. ' has a port that is not of the service', function()
    call('ZREM', key, port)
  end)
end

local function check_run(last, first)
  if string.find(last, '^%d+$') and have_all(own, tonumber(first), tonumber(last)) then return end
  report('outside', last, 'a run of fresh ports from ' .. first .. ' on is not wholly of the service', function()
    drop_run(keys, last)
    for _, range in ipairs(own) do
      local from, to = math.max(first, range[1]), math.min(tonumber(last) or 0, range[2])
      if from <= to then set_run(keys, from, to) end
    end
  end)
end

-- The record of who holds a port; nil if nobody does. Of a block only the first port has it.
local function find_holder(port)
  local record = call('HGET', keys.ports, port)
  if record and is_first_port(record) then record = call('HGET', keys.ports, record) end
  if record then return is_live(record, now) and record end
  local all = {}
  for i = 0, 99 do all[i + 1] = string.format('%d', port - i) end
  for i, offer in ipairs(call('HMGET', keys.offers, unpack(all))) do
    if offer and offer ~= 'leased' and is_live(offer, now) then return i <= count_of(offer) and offer end
  end
end

local function check_owned(port, ends)
  if tonumber(ends) <= tonumber(now) then return end
  if is_in_range(port) then
    local record = find_holder(port)
    if record and owner_of(record) == owner then return end
    return report('owner_of_nothing', port, owner .. ' is said to hold the port, and has no record there', function()
      call('ZREM', keys.owned, port)
    end)
  end
  if overlap_of(keys, service.name, tonumber(port), tonumber(port)) then return end
  report('outside', port, owner .. ' is said to hold a port that is of no service', function()
    call('ZREM', keys.owned, port)
  end)
end

local function check_ticket(ticket)
  if string.find(ticket, '^[^-]+%-%d+.*/%d+/[%d.x]+$') then return end
  report('ticket', ticket, 'the waitlist has a ticket that cannot be read', function()
    leave(keys, service, {ticket})
  end)
end

-- What the service says of its own keys.
local function check_service()
  local name = service.name
  local pools = ranges_in_pool(keys, name, ranges)
  if pools ~= text_of(ranges) then
    report('range', name, 'the range is ' .. text_of(ranges) .. ', and the pool has ' .. pools)
  end
  local soonest = call('ZRANGE', keys.resting, '0', '0', 'WITHSCORES')[2]
  if soonest and not (service.rests and tonumber(service.rests) <= tonumber(soonest)) then
    report('rest_unwatched', name, 'ports rest until ' .. soonest .. ', and nothing would give them back', function()
      call('HSET', keys.service, 'rests', soonest)
    end)
  end
  local waits = call('EXISTS', keys.waitlist) == 1
  if waits and not service.waiting then
    report('waitlist_unknown', name, 'calls wait, and later ones would overtake them', function()
      call('HSET', keys.service, 'waiting', '1')
    end)
  elseif service.waiting and not waits then
    report('waitlist_empty', name, 'the service says that calls wait, and none does', function()
      call('HDEL', keys.service, 'waiting', 'no_rows')
    end)
  end
  if waits and not call('ZSCORE', keys.waitlists, name) then
    report('waitlist_unwatched', name, 'calls wait, and a lost message would leave them waiting', function()
      call('ZADD', keys.waitlists, now, name)
    end)
  end
end

-- How many ports drain. They are counted anew as after a change of the ranges.
local function check_drains(found, said)
  if not service.drains or said_of(service.drains) ~= said then return end -- it has changed meanwhile
  local count = string.match(said, '^%d+')
  if tonumber(found) == tonumber(count) then return end
  report('drains', service.name, count .. ' ports are said to drain, and there are ' .. found, function()
    local changes = {}
    for i, range in ipairs(draining) do changes[i] = string.format('drop* %d %d', range[1], range[2]) end
    set_drains(keys, service, 0, now, draining)
    call('HSET', keys.service, 'changing', table.concat(changes, ' '))
  end)
end

local checks = {
  names = check_name, offers = check_hash_port, ports = check_hash_port, free = check_set_port, leases = check_set_port,
  resting = check_set_port, fresh = check_run, waitlist = check_ticket, labels = check_labels,
  last = check_last, owned = check_owned,
}
local check = checks[kind]
if not check then
  if kind == 'drains' then check_drains(string.match(cursor, '^(%d+) (.*)$')) else check_service() end
  return {'0', findings}
end
local found
if kind == 'labels' then
  found = call('HSCAN', key, cursor, 'COUNT', '50')
elseif kind == 'names' or kind == 'last' or kind == 'offers' or kind == 'ports' then
  found = call('HSCAN', key, cursor, 'COUNT', '250')
else
  found = call('ZSCAN', key, cursor, 'COUNT', kind == 'owned' and '50' or '250')
end
for i = 1, #found[2], 2 do check(found[2][i], found[2][i + 1]) end
return {found[1], findings}
