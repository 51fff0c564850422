local call = redis.call
-- include ports/align: have_start
-- include ports/pick: look_at_exact
-- include ranges: have_all, read_ranges, size_of, text_of
-- include record: is_live

-- What is wrong with requests. The texts are those of the answers of HTTP.

-- The error of one request: code, which request and which field of it, and the detail.
local function fault(code, request, field, detail)
  return code .. ' [' .. request.index .. '].' .. field .. ' ' .. detail
end

-- Joins errors with | between them. The code is that of the first.
local function all_faults(faults)
  local text = {faults[1]}
  for i = 2, #faults do text[i] = string.match(faults[i], '%[.*') end
  return table.concat(text, '|')
end

-- The error of requests that can never be met, since the service does not have these ports, or not as many; nil if
-- there is none.
local function check_range(keys, service, requests, total)
  local ranges, faults = read_ranges(keys), {}
  local size, longest = size_of(ranges)
  for _, request in ipairs(requests) do
    local given = request.exact or request.preferred
    if request.count > longest then
      faults[#faults + 1] = fault('INVALID', request, 'count', 'is more than the ' .. longest .. ' ports of ' ..
        (#ranges > 1 and 'the longest range of ' or '') .. service.name)
    elseif given and not have_all(ranges, tonumber(given), given + request.count - 1) then
      faults[#faults + 1] = fault('INVALID', request, request.exact and 'port' or 'prefer',
        'must be within ' .. (#ranges > 1 and 'one of the ranges ' or 'the range ') .. text_of(ranges) ..
        (request.count > 1 and ', with the whole block' or ''))
    elseif request.align > 1 and not have_start(ranges, request.count, request.align) then
      faults[#faults + 1] = fault('INVALID', request, 'align', 'is met by none of the ports ' .. text_of(ranges))
    end
  end
  if #faults > 0 then return all_faults(faults) end
  if total > size then return 'INVALID body asks for ' .. total .. ' ports, and ' .. service.name .. ' has ' .. size end
end

-- Which port the name of a request holds, in words; nil if none, and the port of an offer or a lease of it that
-- ended.
local function held_by_name(keys, now, request)
  local port = request.has
  if not port then return nil end
  local record = call('HGET', keys.offers, port)
  local offered = record and record ~= 'leased'
  if not offered then record = call('HGET', keys.ports, port) end
  if not record or not is_live(record, now) then return nil, port end -- may_overtake may have cleared it
  return request.name .. (offered and ' is offered port ' or ' has port ') .. port
end

-- What keeps a request from its exact ports, in words, and in how many ms they are free, if that is known; nil if
-- nothing does.
local function held_exact(keys, service, request, may_have)
  local port, wait = look_at_exact(keys, service, request)
  if port then
    return 'port ' .. port .. ' is taken' .. (wait and string.format(', and comes free in %d ms', wait) or ''), wait
  elseif not may_have then
    return 'port ' .. request.exact .. ' is for calls that wait'
  end
end

-- The error of requests whose names hold ports, or whose exact ports are held; nil if there is none. Sets
-- request.last to the port of an offer or a lease of the name that ended.
local function check_held(keys, service, requests, may_have)
  local faults, of_ports, longest = {}, {}, 0
  for _, request in ipairs(requests) do
    local held, last = held_by_name(keys, service.now, request)
    request.last = last
    if held then faults[#faults + 1] = fault('NAME_TAKEN', request, 'name', held) end
    if request.exact then
      local wrong, wait = held_exact(keys, service, request, may_have)
      if wrong then
        of_ports[#of_ports + 1] = {request, wrong}
        longest = longest and wait and math.max(longest, wait)
      end
    end
  end
  for _, of_port in ipairs(of_ports) do
    faults[#faults + 1] = fault(string.format('PORT_TAKEN %d', longest or -1), of_port[1], 'port', of_port[2])
  end
  if #faults > 0 then return all_faults(faults) end
end

-- The error of a request whose secret belongs to another offer, to one that has ended, or to other ports than
-- requested, or to another owner; nil if there is none. The state and what follows it are of the answer of find_offer.
local function check_secret(request, state, holder, port, count, is_anothers)
  if not state then return nil end
  if state == 'elsewhere' or holder ~= request.name then
    return fault('INVALID', request, 'secret', 'belongs to another offer')
  elseif is_anothers then
    return fault('NOT_OWNER', request, 'secret', 'belongs to another owner')
  elseif state == 'released' or state == 'over' then
    return fault('OFFER_ACCEPTED', request, 'secret', 'this offer was accepted, and its port was released')
  elseif state == 'rejected' then
    return fault('OFFER_REJECTED', request, 'secret', 'this offer was rejected already')
  elseif request.exact and request.exact ~= port then
    return fault('INVALID', request, 'port', 'is not the one that this secret has: ' .. port)
  elseif request.counted and request.count ~= count then
    return fault('INVALID', request, 'count', 'is not the one that this secret has: ' .. count)
  elseif port % request.align ~= 0 then
    return fault('INVALID', request, 'align', 'does not divide the port that this secret has: ' .. port)
  end
end
