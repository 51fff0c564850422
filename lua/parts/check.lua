local call = redis.call
-- include pick: look_at_exact
-- include record: is_live
-- include request: all_faults, fault

-- What requests cannot have, and why.

-- The error of requests that can never be met, since the service has no such ports, or not so many; nil if there is none.
local function check_range(keys, service, requests, total)
  local range = call('HMGET', keys.service, 'start', 'end')
  local first, last, faults = tonumber(range[1]), tonumber(range[2]), {}
  local size = last - first + 1
  for _, request in ipairs(requests) do
    local named = request.exact or request.preferred
    local port = tonumber(named or first)
    if request.count > size then
      faults[#faults + 1] =
        fault('INVALID', request, 'count', 'is more than the ' .. size .. ' ports of ' .. service.name)
    elseif port < first or named and port + request.count - 1 > last then
      faults[#faults + 1] = fault('INVALID', request, request.exact and 'port' or 'prefer',
        'must be within the range ' .. first .. '-' .. last .. (request.count > 1 and ', with the whole block' or ''))
    end
  end
  if #faults > 0 then return all_faults(faults) end
  if total > size then return 'INVALID body asks for ' .. total .. ' ports, and ' .. service.name .. ' has ' .. size end
end

-- What keeps the name of a request from having ports, in words; nil if nothing does, and the port that it had when a hold ran
-- out.
local function held_by_name(keys, now, request)
  local port = request.has
  if not port then return nil end
  local record = call('HGET', keys.offers, port)
  local offered = record and record ~= 'leased'
  if not offered then record = call('HGET', keys.ports, port) end
  if not record or not is_live(record, now) then return nil, port end -- has_rows may have cleared it just now
  return request.name .. (offered and ' is offered port ' or ' has port ') .. port
end

-- What keeps a request from its exact ports, in words, and in how many ms they are free, if that is known; nil if nothing does.
local function held_exact(keys, service, request, may_take)
  local port, wait = look_at_exact(keys, service, request)
  if port then
    return 'port ' .. port .. ' is taken' .. (wait and string.format(', and comes free in %d ms', wait) or ''), wait
  elseif not may_take then
    return 'port ' .. request.exact .. ' is for those who wait in line'
  end
end

-- The error of requests whose names have ports, or that ask for exact ports that are taken; nil if there is none. Finds also
-- what the names had when a hold ran out: request.last.
local function check_held(keys, service, requests, may_take)
  local faults, of_ports, longest = {}, {}, 0
  for _, request in ipairs(requests) do
    local held, last = held_by_name(keys, service.now, request)
    request.last = last
    if held then faults[#faults + 1] = fault('NAME_TAKEN', request, 'name', held) end
    if request.exact then
      local taken, wait = held_exact(keys, service, request, may_take)
      if taken then
        of_ports[#of_ports + 1] = {request, taken}
        longest = longest and wait and math.max(longest, wait)
      end
    end
  end
  for _, of_port in ipairs(of_ports) do
    faults[#faults + 1] = fault(string.format('PORT_TAKEN %d', longest or -1), of_port[1], 'port', of_port[2])
  end
  if #faults > 0 then return all_faults(faults) end
end

return check_range, check_held
