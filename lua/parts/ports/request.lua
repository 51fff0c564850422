local call = redis.call

-- Reads requests. `offers` has the key of each secret, args name, secret and options of each. What a request does not
-- ask for is nil or false. request.has is the port that the name has or had.
local function read_requests(keys, offers, args)
  local requests, of_names = {}, {}
  for i, offer in ipairs(offers) do
    local request = {offer = offer, name = args[3 * i - 2], secret = args[3 * i - 1], count = 1, index = i - 1}
    local options = args[3 * i]
    request.own = string.sub(options, 1, 1) == '1'
    local lease, port, prefer, count = string.match(options, '^%d (%d+) (%d+) (%d+) (%d+)$')
    if lease then
      request.lease = lease ~= '0' and lease
      request.exact = port ~= '0' and port
      request.preferred = prefer ~= '0' and prefer
      request.counted = count ~= '0'
      request.count = math.max(1, tonumber(count))
    end
    requests[i], of_names[i] = request, request.name
  end
  for i, port in ipairs(call('HMGET', keys.names, unpack(of_names))) do requests[i].has = port end
  return requests
end

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

-- The error of a request whose secret belongs to another offer, to one that has ended, or to other ports than
-- requested; nil if there is none. The state and what follows it are the answer of find_offer.
local function check_secret(request, state, holder, port, count)
  if not state then return nil end
  if state == 'elsewhere' or holder ~= request.name then
    return fault('INVALID', request, 'secret', 'belongs to another offer')
  elseif state == 'released' or state == 'over' then
    return fault('OFFER_ACCEPTED', request, 'secret', 'this offer was accepted, and its port was released')
  elseif state == 'rejected' then
    return fault('OFFER_REJECTED', request, 'secret', 'this offer was rejected already')
  elseif request.exact and request.exact ~= port then
    return fault('INVALID', request, 'port', 'is not the one that this secret has: ' .. port)
  elseif request.counted and request.count ~= count then
    return fault('INVALID', request, 'count', 'is not the one that this secret has: ' .. count)
  end
end
