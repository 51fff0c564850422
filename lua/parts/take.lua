-- Takes ports for wants, and their names: want.port is the first of each. All, or none.
--
-- answer: nil                     they have them; what they are then written as is up to the act
--         a number, or an error   the script's answer: see the act

-- What keeps the name of a want from having ports, in words; nil where nothing does, and the port that it had when a hold ran
-- out.
local function taken(want)
  local port = want.has
  if not port then return nil end
  local record = call('HGET', offers, port)
  local offered = record and record ~= 'leased'
  if not offered then record = call('HGET', ports, port) end
  if not record or not lives(record) then return nil, port end -- has_rows may have cleared it just now
  return want.name .. (offered and ' is offered port ' or ' has port ') .. port
end

-- The error that stands for several, the first in front.
local function all_faults(faults)
  local text = {faults[1]}
  for i = 2, #faults do text[i] = string.match(faults[i], '%[.*') end
  return redis.error_reply(table.concat(text, '|'))
end

-- The error of wants that can never be met, since the service has no such ports, or not so many; nil where there is none.
local function impossible(wants, total)
  local range = call('HMGET', service_key, 'start', 'end')
  local first, last, faults = tonumber(range[1]), tonumber(range[2]), {}
  for _, want in ipairs(wants) do
    local port = tonumber(want.certain or want.prefer or first)
    if want.count > last - first + 1 then
      faults[#faults + 1] = fault_text('INVALID', want, 'count', 'is more than the ' .. last - first + 1 .. ' ports of ' .. service)
    elseif port < first or (want.certain or want.prefer) and port + want.count - 1 > last then
      faults[#faults + 1] = fault_text('INVALID', want, want.certain and 'port' or 'prefer',
        'must lie within the range ' .. first .. '-' .. last .. (want.count > 1 and ', with all that it counts' or ''))
    end
  end
  if #faults > 0 then return all_faults(faults) end
  if total > last - first + 1 then
    return redis.error_reply('INVALID body asks for ' .. total .. ' ports, and ' .. service .. ' has ' .. last - first + 1)
  end
end

-- The error of wants whose names have ports, or that name ports that are taken; nil where there is none. Finds also what the
-- names had when a hold ran out.
local function refused(wants, turn)
  local faults, of_ports, wait = {}, {}, 0
  for _, want in ipairs(wants) do
    local why, last = taken(want)
    want.last = last
    if why then faults[#faults + 1] = fault_text('NAME_TAKEN', want, 'name', why) end
    if want.certain then
      local port, ms = look_at_certain(want)
      local what = port and 'port ' .. port .. ' is taken' .. (ms and string.format(', and comes free in %d ms', ms) or '')
      if not turn then what = what or 'port ' .. want.certain .. ' is for those who wait in line' end
      if what then
        of_ports[#of_ports + 1] = {want, what}
        wait = wait and ms and math.max(wait, ms)
      end
    end
  end
  for _, of_port in ipairs(of_ports) do
    faults[#faults + 1] = fault_text(string.format('PORT_TAKEN %d', wait or -1), of_port[1], 'port', of_port[2])
  end
  if #faults > 0 then return all_faults(faults) end
end

-- The answer where a call finds no ports: it has to wait, or it fails.
local function none_free(total, turn)
  if stay == '1' then return join(ticket) end
  if not turn then return redis.error_reply('EXHAUSTED -1 others wait in line for a port of ' .. service) end
  local what = total == 1 and 'every port of ' .. service .. ' is taken' or service .. ' has no such ' .. total .. ' ports free'
  return redis.error_reply(string.format('EXHAUSTED %d %s', next_free() or -1, what))
end

-- Clears what holds that ran out have left at the ports that were picked, and those of the names. Whether that was all.
local function clear_picked(wants)
  local all = {}
  for _, want in ipairs(wants) do
    if want.last then all[#all + 1] = want.last end
    for i = 0, want.count - 1 do all[#all + 1] = string.format('%d', want.port + i) end
  end
  return clear_all(all, 50)
end

-- Where somebody looks whether the range can be narrowed, what is handed out outside is the answer: it can not.
local function keep_range(wants)
  local first, last, patience = string.match(changing, '^narrow (%d+) (%d+) %w+ (%d+)')
  local left = patience - now
  local outside = left < 0 or left > 5000 -- more only if Redis' clock has stepped back
  for _, want in ipairs(wants) do
    outside = outside or want.port - first < 0 or want.port + want.count - 1 - last > 0
  end
  if outside then call('HDEL', service_key, 'changing') end
end

-- Lets those behind a call pass whose turn it was, and that waits for rows that there are not.
local function tell_of_no_rows()
  local known, shortest = no_rows_up_to()
  local at = known and call('ZSCORE', line, known)
  if at and tonumber(at) >= tonumber(call('ZSCORE', line, ticket)) then return end
  local _, _, rows = demand(ticket)
  waiting = '1'
  set_no_rows(ticket, math.min(at and shortest or math.huge, shortest_of(rows)))
  notify(16)
end

-- Whether the script has put so much in order that the ports are left to the next one.
local function too_much(total) return 2 * (tidied + put_right) + total > 300 end

local function take(wants)
  if not cooldown then return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service) end
  local total, row = 0, 1
  for _, want in ipairs(wants) do
    total = total + want.count
    row = math.max(row, want.count)
  end
  local wrong = impossible(wants, total)
  if wrong then return wrong end
  if changing and string.sub(changing, 1, 6) ~= 'narrow' then return 2 end
  -- include unless_full
  settle_rest()
  local turn = true
  if waiting then
    turn = may_take(ticket, total, row, #wants)
    if waiting and somebody_left then notify(16) end
  end
  if turn == nil or too_much(total) then return 1 end
  wrong = refused(wants, turn)
  if wrong then return wrong end
  if not turn then return none_free(total, false) end
  local outcome = pick(wants)
  if outcome ~= 'picked' or not clear_picked(wants) or too_much(total) then
    put_back()
    if outcome ~= 'none' then return 1 end
    local answer = none_free(total, true)
    if stay == '1' and row > 1 then tell_of_no_rows() end
    return answer
  end
  local fields = {}
  for _, want in ipairs(wants) do
    fields[#fields + 1] = want.name
    fields[#fields + 1] = want.port
  end
  call('HSET', names, unpack(fields))
  if changing then keep_range(wants) end
end

-- Ends the waiting of a call that has its answer, and tells those whose turn it is then.
local function served()
  if not waiting then return end
  if ticket ~= '' then leave({ticket}) end
  if not waiting then return end
  local known, shortest = no_rows_up_to()
  if known then set_no_rows(known, shortest) end -- what was handed out may come free before
  notify(2)
end
