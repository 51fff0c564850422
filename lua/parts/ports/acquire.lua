local call = redis.call
-- include clear_ended: clear_ended
-- include drains: must_drain
-- include full_redis: stop_if_full
-- include labels: add_labels
-- include lease_bounds: parse_bounds, too_long
-- include owner: check_quota
-- include ports/by_name: prefer_by_name, write_holders
-- include ports/check_requests: all_faults, check_held, check_range, fault
-- include ports/overtake: may_overtake, shortest_of
-- include ports/pick: new_picking, pick, put_back
-- include ranges: have_all, ranges_of
-- include resting: settle_rest
-- include service: is_changing, no_service
-- include waitlist: demand, join, leave, next_free, no_rows_up_to, notify, set_no_rows

-- The answer to a group for which no ports are free: it waits, or it is refused.
local function none_free(keys, service, group, total, may_have)
  if group.stay then return 'waiting', join(keys, service, group.ticket) end
  if not may_have then return 'refused', 'EXHAUSTED -1 other calls wait for a port of ' .. service.name end
  local what = service.name .. ' has no such ' .. total .. ' ports free'
  if total == 1 then what = 'every port of ' .. service.name .. ' is taken' end
  return 'refused', string.format('EXHAUSTED %d %s', next_free(keys, service) or -1, what)
end

-- Clears what offers and leases that ended have left at the picked ports and at the ports that the names had. Returns
-- whether that was all.
local function clear_picked(keys, picking, requests)
  local all = {}
  for _, request in ipairs(requests) do
    if request.last then all[#all + 1] = request.last end
    for i = 0, request.count - 1 do all[#all + 1] = string.format('%d', request.port + i) end
  end
  local are_clear, found = clear_ended(keys, all, 50)
  picking.cleared = picking.cleared + found
  return are_clear
end

-- While a definition looks whether it can narrow the ranges, ports that are granted outside of the new ones answer
-- it: it cannot, and its search begins again. A search that was given up, or lies in the future since the clock
-- stepped back, ends as well.
local function keep_range(keys, service, requests)
  local first, last, lasts, several = string.match(service.changing, '^narrow (%d+) (%d+) %w+ (%d+) ?(.*)')
  local ranges, left = ranges_of(first, last, several), lasts - service.now
  local ends = left < 0 or left > 5000
  for _, request in ipairs(requests) do
    ends = ends or not have_all(ranges, tonumber(request.port), request.port + request.count - 1)
  end
  if ends then call('HDEL', keys.service, 'changing') end
end

-- Records that the rows that a call waits for do not exist, and lets those after it pass whose turn it is then.
local function notify_of_no_rows(keys, service, ticket)
  local known, shortest = no_rows_up_to(keys, service.now)
  local at = known and call('ZSCORE', keys.waitlist, known)
  if at and tonumber(at) >= tonumber(call('ZSCORE', keys.waitlist, ticket)) then return end
  local _, _, rows = demand(ticket)
  service.waiting = '1'
  set_no_rows(keys, service, ticket, math.min(at and shortest or math.huge, shortest_of(rows)))
  notify(keys, service, 16)
end

-- Whether a script has cleared and corrected so much that the next one is to grant the ports.
local function is_too_much(picking, total)
  return 2 * (picking.cleared + picking.corrected) + total > 300
end

-- Records the first port of each name.
local function set_names(keys, requests)
  local fields = {}
  for _, request in ipairs(requests) do
    fields[#fields + 1] = request.name
    fields[#fields + 1] = request.port
  end
  call('HSET', keys.names, unpack(fields))
end

-- Grants ports to the requests of a group that have none, and sets request.port to the first of each. All get their
-- ports, or none. The answer is that of acquire.
local function grant(keys, service, group, requests)
  if not service.cooldown then return 'refused', no_service(service.name) end
  local total, row, picking = 0, 1, new_picking(service)
  for _, request in ipairs(requests) do
    total = total + request.count
    row = math.max(row, request.count + request.align - 1)
  end
  local wrong = check_range(keys, service, requests, total)
    or group.owner and check_quota(keys, service.now, group.owner, group.most, total)
  if wrong then return 'refused', wrong end
  if is_changing(service) then return 'unsettled' end
  stop_if_full(keys)
  if must_drain(keys, service) then return 'unsettled' end
  settle_rest(keys, service)
  local may_have = true
  if service.waiting then
    may_have = may_overtake(keys, service, picking, group.ticket, total, row, #requests)
    if service.waiting and service.has_lost then notify(keys, service, 16) end
  end
  if may_have == nil or is_too_much(picking, total) then return 'again' end
  if service.by_name then prefer_by_name(keys, requests, group.owner) end
  wrong = check_held(keys, service, requests, may_have)
  if wrong then return 'refused', wrong end
  if not may_have then return none_free(keys, service, group, total, false) end
  local outcome = pick(keys, service, picking, requests)
  if outcome ~= 'picked' or not clear_picked(keys, picking, requests) or is_too_much(picking, total) then
    put_back(keys, picking)
    if outcome ~= 'none' then return 'again' end
    local status, value = none_free(keys, service, group, total, true)
    if group.stay and row > 1 then notify_of_no_rows(keys, service, group.ticket) end
    return status, value
  end
  set_names(keys, requests)
  if service.by_name then write_holders(keys, requests) end
  if service.changing then keep_range(keys, service, requests) end
  return 'granted'
end

-- Removes a group that has its answer from the waitlist, and tells the servers whose turn it is then.
local function end_waiting(keys, service, ticket)
  if not service.waiting then return end
  if ticket ~= '' then leave(keys, service, {ticket}) end
  if not service.waiting then return end
  local known, shortest = no_rows_up_to(keys, service.now)
  -- The ports that were granted may become free before the time that was known.
  if known then set_no_rows(keys, service, known, shortest) end
  notify(keys, service, 2)
end

-- Gives each request the lease that it is to have: its own, that of the offer that it accepts, or the default. Returns
-- the error of those that are too long; nil if there is none.
local function set_leases(service, requests)
  local default, longest = parse_bounds(service.lease_bounds)
  local faults = {}
  for _, request in ipairs(requests) do
    local wrong = request.lease and too_long(request.lease, longest)
    if wrong then
      faults[#faults + 1] = fault('INVALID', request, 'lease', wrong)
    elseif not request.lease then
      request.lease = request.is_offered and request.offered_lease or not request.is_offered and default or nil
    end
  end
  if #faults > 0 then return all_faults(faults) end
end

-- Acquires the ports for a group of requests: all, or none. group has the requests, the ticket ('' for none), `stay`:
-- whether it is to wait if too few ports are free, and owner and `most` as of read_requests.
--
-- resolve(request) says what is known of a request: 'missing', 'held' if it has its ports, 'done' and its record, or
-- 'refused' and an error. may_grant(), if given, is called before anything is granted or written, and returns nil, or
-- a status that becomes the answer. write(requests, answers) writes the requests that were not done, and adds the
-- record of each to answers.
--
-- answer: status, value
--   'granted'    answers: of each request its record, or {record} if it was done before
--   'waiting'    the ticket is in the waitlist; in how many ms a port becomes free by itself, 0 if none does
--   'again'      this script did other work, and is to be called again
--   'unsettled'  settle.lua must be called first
--   'refused'    the error
local function acquire(keys, service, group, resolve, write, may_grant)
  local answers, missing, unwritten = {}, {}, {}
  for i, request in ipairs(group.requests) do
    local status, value = resolve(request)
    if status == 'refused' then
      return status, value
    elseif status == 'done' then
      answers[i] = {value}
    else
      unwritten[#unwritten + 1] = request
      if status == 'missing' then missing[#missing + 1] = request end
    end
  end
  local wrong = set_leases(service, unwritten)
  if wrong then return 'refused', wrong end
  local obstacle = #unwritten > 0 and may_grant and may_grant()
  if obstacle then return obstacle end
  if #missing > 0 then
    local status, value = grant(keys, service, group, missing)
    if status ~= 'granted' then return status, value end
  end
  if #unwritten > 0 then write(unwritten, answers) end
  end_waiting(keys, service, group.ticket)
  return 'granted', add_labels(keys, answers)
end

-- What offer.lua and claim.lua answer.
local function answer_of(status, value)
  if status == 'granted' then return #value == 1 and value[1] or value end
  if status == 'waiting' then return -value end
  if status == 'again' then return 1 end
  if status == 'unsettled' then return 2 end
  if status == 'behind' then return 3 end
  return redis.error_reply(value)
end
