-- Accepts the offers of several calls that wait at the same time, as accept_plain.lua does that of one.
--
-- KEYS   offers HASH, free ZSET, ports HASH, fence STRING, events STREAM; of each call: offer STRING (of the secret);
--        of an owner: owned ZSET
-- ARGV   of each call, 64 at most: events, request, service, secret, the highest fence of the pool that the server saw,
--        and the highest of all pools; of an owner of all calls: owner
--
-- answer of each call, in their order:
--        record  a new allocation
--        0       nothing was changed: take the long path, accept.lua
--        3       nothing was changed: this is an older state
-- errors HALF_WRITTEN as the answer of a call: the script failed after its first change, and what became of the call is
--        unknown
--
-- Worst case: 64 calls: about 700 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include fence: highest_of, next_fence
-- include history: add_event
-- include ports/own_lazily: own_all_lazily
-- include record: allocation_record, owner_part, parse_plain_offer
-- include write_rest: write_rest

local offers, free, ports, fence, events = unpack(KEYS)
local offer = {unpack(KEYS, 6)}
local owned = #ARGV % 6 > 0 and table.remove(offer) or nil
local owner = owned and table.remove(ARGV)
local of_owner = owner and owner_part(owner)
local now, microseconds = read_clock()

-- The offers that take the short path, each with its port; of two of one port the second takes the long one. As in
-- find_offer, the clock decides, and a record must still be at its port, where none has a mark.
local found, at, name_of, left, owner_of, answers = {}, {}, {}, {}, {}, {}
for i = 1, #offer do
  local record = call('GET', offer[i])
  answers[i] = 0
  if record then
    local service, name, port, expires, is_owned = parse_plain_offer(record, of_owner)
    if service == ARGV[6 * i - 3] and expires - now > 0 and not name_of[port] then
      found[#found + 1], at[#at + 1] = i, port
      name_of[port], left[i], answers[i], owner_of[i] = name, expires - now, record, is_owned and owner or nil
    end
  end
end
local calls, all = {}, {}
for k, record in ipairs(#at > 0 and call('HMGET', offers, unpack(at)) or {}) do
  local i = found[k]
  if record == answers[i] then calls[#calls + 1], all[#all + 1] = i, at[k] end
  answers[i] = 0
end
if #calls == 0 then return answers end

-- As in accept_plain.lua, a secret is remembered for a minute at most, and the first write is one that a full Redis
-- does not refuse.
call('HDEL', offers, '')
return write_rest(answers, calls, function()
  local first = next_fence(fence, microseconds, #calls, highest_of(5, 6, #offer), highest_of(6, 6, #offer))
  local records, holds = {}, {}
  for k, i in ipairs(calls) do
    local port = all[k]
    if first then
      local number = k == 1 and first or string.format('%d', first + k - 1)
      local record = allocation_record(name_of[port], port, 1, now, number, nil, nil, ARGV[6 * i - 2], owner_of[i])
      records[2 * k - 1], records[2 * k], answers[i] = port, record, record
      if owner_of[i] then holds[#holds + 1], holds[#holds + 2] = '9007199254740991', port end
      if left[i] > 60000 then call('PEXPIRE', offer[i], '60000') end
      add_event(events, 'allocated', name_of[port], port, 1, number, owner_of[i], nil, 6 * i - 5)
    else
      answers[i] = 3
    end
  end
  if not first then return end
  call('ZREM', free, unpack(all))
  call('HDEL', offers, unpack(all))
  call('HSET', ports, unpack(records))
  if #holds > 0 then own_all_lazily(owned, now, holds) end
end)
