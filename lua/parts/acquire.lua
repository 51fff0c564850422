local call = redis.call
-- include check: check_held, check_range
-- include clear: clear_all
-- include pass: may_pass, shortest_of
-- include pick: new_picking, pick, put_back
-- include rest: settle_rest
-- include service: no_service
-- include waitlist: demand, join, leave, next_free, no_rows_up_to, notify, set_no_rows

-- What a group finds no ports for has to wait, or fails.
local function none_free(keys, service, group, total, may_take)
  if group.stay then return 'waiting', join(keys, service, group.ticket) end
  if not may_take then return 'refused', 'EXHAUSTED -1 other calls wait for a port of ' .. service.name end
  local what = service.name .. ' has no such ' .. total .. ' ports free'
  if total == 1 then what = 'every port of ' .. service.name .. ' is taken' end
  return 'refused', string.format('EXHAUSTED %d %s', next_free(keys, service) or -1, what)
end

-- Clears what holds that ran out have left at the ports that were picked, and those of the names. Whether that was all.
local function clear_picked(keys, picking, requests)
  local all = {}
  for _, request in ipairs(requests) do
    if request.last then all[#all + 1] = request.last end
    for i = 0, request.count - 1 do all[#all + 1] = string.format('%d', request.port + i) end
  end
  local are_clear, found = clear_all(keys, all, 50)
  picking.tidied = picking.tidied + found
  return are_clear
end

-- If somebody looks whether the range can be narrowed, what is handed out outside is the answer: it can not.
local function keep_range(keys, service, requests)
  local first, last, patience = string.match(service.changing, '^narrow (%d+) (%d+) %w+ (%d+)')
  local left = patience - service.now
  local outside = left < 0 or left > 5000 -- more only if Redis' clock has stepped back
  for _, request in ipairs(requests) do
    outside = outside or request.port - first < 0 or request.port + request.count - 1 - last > 0
  end
  if outside then call('HDEL', keys.service, 'changing') end
end

-- Lets those behind a call pass whose turn it was, and that waits for rows that there are not.
local function tell_of_no_rows(keys, service, ticket)
  local known, shortest = no_rows_up_to(keys, service.now)
  local at = known and call('ZSCORE', keys.waitlist, known)
  if at and tonumber(at) >= tonumber(call('ZSCORE', keys.waitlist, ticket)) then return end
  local _, _, rows = demand(ticket)
  service.waiting = '1'
  set_no_rows(keys, service, ticket, math.min(at and shortest or math.huge, shortest_of(rows)))
  notify(keys, service, 16)
end

-- Whether a script has put so much in order that the ports are left to the next one.
local function is_too_much(picking, total)
  return 2 * (picking.tidied + picking.put_right) + total > 300
end

-- Takes the names of requests that have ports, for good.
local function take_names(keys, requests)
  local fields = {}
  for _, request in ipairs(requests) do
    fields[#fields + 1] = request.name
    fields[#fields + 1] = request.port
  end
  call('HSET', keys.names, unpack(fields))
end

-- Takes ports for the requests of a group that have none, and their names: request.port is the first of each. All, or none. The
-- answer is that of acquire.
local function grant(keys, service, group, requests)
  if not service.cooldown then return 'refused', no_service(service.name) end
  local total, row, picking, changing = 0, 1, new_picking(), service.changing
  for _, request in ipairs(requests) do
    total = total + request.count
    row = math.max(row, request.count)
  end
  local wrong = check_range(keys, service, requests, total)
  if wrong then return 'refused', wrong end
  if changing and string.sub(changing, 1, 6) ~= 'narrow' then return 'unsettled' end
  -- Ends the script before its first change if Redis is full. ZADD XX of nothing changes nothing, but Redis refuses it then.
  -- After it nothing is refused, so no script stops half-way.
  call('ZADD', keys.free, 'XX', '0', '')
  settle_rest(keys, service)
  local may_take = true
  if service.waiting then
    may_take = may_pass(keys, service, picking, group.ticket, total, row, #requests)
    if service.waiting and service.somebody_left then notify(keys, service, 16) end
  end
  if may_take == nil or is_too_much(picking, total) then return 'again' end
  wrong = check_held(keys, service, requests, may_take)
  if wrong then return 'refused', wrong end
  if not may_take then return none_free(keys, service, group, total, false) end
  local outcome = pick(keys, service.free_before, picking, requests)
  if outcome ~= 'picked' or not clear_picked(keys, picking, requests) or is_too_much(picking, total) then
    put_back(keys, picking)
    if outcome ~= 'none' then return 'again' end
    local status, value = none_free(keys, service, group, total, true)
    if group.stay and row > 1 then tell_of_no_rows(keys, service, group.ticket) end
    return status, value
  end
  take_names(keys, requests)
  if changing then keep_range(keys, service, requests) end
  return 'granted'
end

-- Ends the waiting of a group that has its answer, and tells those whose turn it is then.
local function end_waiting(keys, service, ticket)
  if not service.waiting then return end
  if ticket ~= '' then leave(keys, service, {ticket}) end
  if not service.waiting then return end
  local known, shortest = no_rows_up_to(keys, service.now)
  if known then set_no_rows(keys, service, known, shortest) end -- what was handed out may come free before
  notify(keys, service, 2)
end

-- Acquires what a group of requests asks for: all, or none. group has the requests, the ticket ('' if it has none), and whether
-- it is to stay in the waitlist if nothing is free.
--
-- resolve(request) says what is known of a request: 'missing', 'held' if it has its ports, 'done' and its record, or 'refused'
-- and an error. may_grant(), if given, is asked before anything is taken or written: nil, or a status that is the answer.
-- write(requests, answers) writes those that were not done, and puts the record of each into answers.
--
-- answer: status, value
--   'granted'    answers: of each request its record, or {record} if it was done before
--   'waiting'    the ticket is in the waitlist; in how many ms a port comes free by itself, 0 if none does that is known of
--   'again'      some ports were put in order, and another script goes on
--   'unsettled'  the service has to be settled before
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
  local obstacle = #unwritten > 0 and may_grant and may_grant()
  if obstacle then return obstacle end
  if #missing > 0 then
    local status, value = grant(keys, service, group, missing)
    if status ~= 'granted' then return status, value end
  end
  if #unwritten > 0 then write(unwritten, answers) end
  end_waiting(keys, service, group.ticket)
  return 'granted', answers
end

-- What a script of one group answers: see offer.lua.
local function answer_of(status, value)
  if status == 'granted' then return #value == 1 and value[1] or value end
  if status == 'waiting' then return -value end
  if status == 'again' then return 1 end
  if status == 'unsettled' then return 2 end
  if status == 'behind' then return 3 end
  return redis.error_reply(value)
end

return acquire, answer_of
