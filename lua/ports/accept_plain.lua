-- Accepts offers of one port without a lease and labels: the short path, with few keys, that most calls take.
--
-- KEYS   offers HASH, free ZSET, ports HASH, fence STRING, events STREAM; of each call: offer STRING (of the secret);
--        of an owner: owned ZSET
-- ARGV   service; of each call, 64 at most: events, request, secret, the highest fence of the pool that the server saw,
--        and the highest of all pools; of an owner, who makes one call: owner
--
-- answer of each call, one alone by itself:
--        record  a new allocation
--        0       nothing was changed: take the long path, accept.lua
--        3       nothing was changed: this is an older state
-- errors HALF_WRITTEN
--
-- Worst case: 64 calls: about 700 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include fence: highest_of, next_fence
-- include history: add_event
-- include ports/own_lazily: own_lazily
-- include record: allocation_record, parse_offer
-- include write_rest: write_rest

local offers, free, ports, fence, events = unpack(KEYS)
local offer = {unpack(KEYS, 6)}
local service = ARGV[1]
local n = math.floor((#ARGV - 1) / 5)
local owner = ARGV[5 * n + 2]
local now, microseconds = read_clock()

-- The offers that take the short path, by the port of each; those of a port that has another record than the secret are
-- over, as in find_offer, which also lets the clock decide.
local found, at, answers = {}, {}, {}
for i = 1, n do
  local record = call('GET', offer[i])
  answers[i] = 0
  if record then
    local of, name, port, count, expires, lease, mark, its_owner, labels = parse_offer(record)
    local left = expires - now
    if left > 0 and of == service and count == 1 and not lease and not mark and not labels
      and (not its_owner or its_owner == owner) and not found[port] then
      found[port] = {call = i, record = record, name = name, left = left, owner = its_owner}
      at[#at + 1] = port
    end
  end
end
local open, all = {}, {}
for k, record in ipairs(#at > 0 and call('HMGET', offers, unpack(at)) or {}) do
  if record == found[at[k]].record then
    open[#open + 1], all[#all + 1] = found[at[k]], at[k]
  end
end
if #all == 0 then return n == 1 and 0 or answers end

-- A repeated call gets the same answer, so the secret is remembered for a minute, or for the rest of the offer's time
-- if that is shorter. At a thousand calls a second, a minute takes megabytes of Redis; half an hour would take
-- gigabytes. Either first write lets the script write even if Redis is full, see parts/full_redis.lua.
local function remember(each)
  if each.left > 60000 then return call('PEXPIRE', offer[each.call], '60000') end
end
if not remember(open[1]) then call('HDEL', offers, '') end
return write_rest(function()
  local first = next_fence(fence, microseconds, #all, highest_of(5, 5, n), highest_of(6, 5, n))
  if not first then
    call('PEXPIRE', offer[open[1].call], string.format('%d', open[1].left))
    for _, each in ipairs(open) do answers[each.call] = 3 end
    return
  end
  local records = {}
  for k, each in ipairs(open) do
    local number, begin = k == 1 and first or string.format('%d', first + k - 1), 5 * each.call - 3
    local record = allocation_record(each.name, all[k], 1, now, number, nil, nil, ARGV[begin + 2], each.owner)
    records[2 * k - 1], records[2 * k], answers[each.call] = all[k], record, record
    if k > 1 then remember(each) end
    if each.owner then own_lazily(offer[2], now, all[k], 1) end
    add_event(events, 'allocated', each.name, all[k], 1, number, each.owner, nil, begin)
  end
  call('ZREM', free, unpack(all))
  call('HDEL', offers, unpack(all))
  call('HSET', ports, unpack(records))
end) or n == 1 and answers[1] or answers
