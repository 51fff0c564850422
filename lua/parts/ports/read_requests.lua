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
