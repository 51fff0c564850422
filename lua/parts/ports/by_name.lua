local call = redis.call
-- include ports/align: starts_in
-- include ranges: read_ranges

-- Services that pick ports by name: `pick` is 'name'. A request that asks for no port prefers the one that its name
-- leads to. Whoever had a port last may have it again while it cools down.
--
-- `last` of such a service has, for each port that was handed out, 'SINCE HOLDER': the holder is the name, and behind
-- a space the owner, if it has one. SINCE is 0, or, if the holder got the port while it cooled down, since when it did:
-- if the holder rejects it, it goes on cooling down. No other service has this key, so no script of the short paths
-- writes it.

-- The first of `count` consecutive ports to which a name leads: one of all such ports of the ranges, which must have
-- some, that are a multiple of `align`. It stays the same as long as the ranges do.
local function port_of_name(ranges, name, count, align)
  local total = 0
  for _, range in ipairs(ranges) do total = total + starts_in(range, count, align) end
  local left = tonumber(string.sub(redis.sha1hex(name), 1, 8), 16) % total
  for _, range in ipairs(ranges) do
    local some, first = starts_in(range, count, align)
    if left < some then return string.format('%d', first + left * align) end
    left = left - some
  end
end

-- Says who makes some requests, and which ports they prefer if they ask for none.
local function prefer_by_name(keys, requests, owner)
  local ranges = read_ranges(keys)
  for _, request in ipairs(requests) do
    request.holder = request.name .. (owner and ' ' .. owner or '')
    if not request.exact and not request.preferred then
      request.preferred = port_of_name(ranges, request.name, request.count, request.align)
    end
  end
end

-- Whether a request may have a port that cools down since `score`, since its holder had it last.
local function may_return(keys, now, request, port, score)
  if not request.holder or tonumber(score) > tonumber(now) then return false end
  local entry = call('HGET', keys.last, port)
  if not entry or string.match(entry, '^%d+ (.*)$') ~= request.holder then return false end
  request.since = request.since or {}
  request.since[port] = score
  return true
end

-- Records who has the ports of requests.
local function write_holders(keys, requests)
  local entries = {}
  for _, request in ipairs(requests) do
    for i = 0, request.count - 1 do
      local port = string.format('%d', request.port + i)
      entries[#entries + 1] = port
      entries[#entries + 1] = (request.since and request.since[port] or '0') .. ' ' .. request.holder
    end
  end
  call('HSET', keys.last, unpack(entries))
end

-- Since when ports that nobody has used cool down all the same: for each a time, or 0.
local function cooling_since(keys, ports)
  local since = {}
  for i, entry in ipairs(call('HMGET', keys.last, unpack(ports))) do
    since[i] = tonumber(entry and string.match(entry, '^%d+') or 0)
  end
  return since
end
