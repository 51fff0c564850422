local call = redis.call

-- Reads requests, and who makes them: owner, and how many ports it may hold ('0': any number); both nil for nobody.
-- `offers` has the key of each secret, args name, secret and options of each. Of an owner, its key comes last, which
-- becomes keys.owned, and owner and number come last. What a request does not ask for is nil or false. request.has is
-- the port that the name has or had.
local function read_requests(keys, offers, args)
  local requests, of_names = {}, {}
  local count = math.floor(#args / 3)
  keys.owned = offers[count + 1]
  for i = 1, count do
    local request = {offer = offers[i], name = args[3 * i - 2], secret = args[3 * i - 1], index = i - 1}
    request.count, request.align = 1, 1
    local options = args[3 * i]
    request.labels = string.match(options, ' ({.*})$')
    if request.labels then options = string.sub(options, 1, -#request.labels - 2) end
    request.existing = string.sub(options, -9) == ' existing'
    if request.existing then options = string.sub(options, 1, -10) end
    request.own = string.sub(options, 1, 1) == '1'
    local lease, port, prefer, row, align = string.match(options, '^%d (%d+) (%d+) (%d+) (%d+)x?(%d*)$')
    if lease then
      request.lease = lease ~= '0' and lease
      request.exact = port ~= '0' and port
      request.preferred = prefer ~= '0' and prefer
      request.counted = row ~= '0'
      request.count = math.max(1, tonumber(row))
      request.align = tonumber(align) or 1
    end
    requests[i], of_names[i] = request, request.name
  end
  for i, port in ipairs(call('HMGET', keys.names, unpack(of_names))) do requests[i].has = port end
  return requests, args[3 * count + 1], args[3 * count + 2]
end
