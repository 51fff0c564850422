-- Rejects the offers of several calls that wait at the same time, as reject.lua does that of one.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET, rest HASH,
--        fresh ZSET, run_lengths ZSET, waitlist ZSET, heartbeats ZSET, waitlists ZSET, events STREAM, labels HASH,
--        last HASH; of each call: offer STRING (of the secret); of an owner: owned ZSET
-- ARGV   of each call, 64 at most: events, request, service, secret, how long the ports rest that were found in use
--        (ms; '': they were not); of an owner of all calls: owner, '1' if the offer must be its
--
-- answer of each call, in their order:
--        1  rejected
--        0  nothing was changed: call reject.lua, as for a block, labels, a port in use, a service that drains or
--           picks by name, or an error
-- errors HALF_WRITTEN as the answer of a call: the script failed after its first change, and what became of the call is
--        unknown
--
-- Worst case: 64 calls: about 500 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include ports/own_lazily: disown_all_lazily
-- include record: mark_offer, owner_part, parse_plain_offer
-- include write_rest: write_rest

local keys = {
  service = KEYS[1], free = KEYS[2], names = KEYS[3], offers = KEYS[4], ports = KEYS[5], leases = KEYS[6],
  resting = KEYS[7], rest = KEYS[8], fresh = KEYS[9], run_lengths = KEYS[10], waitlist = KEYS[11],
  heartbeats = KEYS[12], waitlists = KEYS[13], events = KEYS[14], labels = KEYS[15], last = KEYS[16],
}
local offer = {unpack(KEYS, 17)}
local owned = #ARGV % 5 > 0 and table.remove(offer) or nil
local of_owner = owned and owner_part(ARGV[#ARGV - 1])
local now = read_clock()

local answers = {}
for i = 1, #offer do answers[i] = 0 end
local cooldown, by_name, drains = unpack(call('HMGET', keys.service, 'cooldown', 'pick', 'drains'))
if not cooldown or by_name or drains or call('EXISTS', keys.waitlist) == 1 then return answers end
local found, at, seen = {}, {}, {} -- of two calls of one port the second is left to reject.lua
for i = 1, #offer do
  local record = ARGV[5 * i] == '' and call('GET', offer[i])
  if record then
    local service, name, port, expires, is_owned = parse_plain_offer(record, of_owner)
    if service == ARGV[5 * i - 2] and expires - now > 0 and not seen[port] then
      at[#at + 1], seen[port] = port, true
      found[#found + 1] = {of = i, record = record, name = name, left = expires - now, is_owned = is_owned}
    end
  end
end
if #at == 0 then return answers end

local calls, all, names, scores, disowned, rejected = {}, {}, {}, {}, {}, {}
local score = string.format('%d', now - cooldown) -- no holder has used these ports, so they need no cooldown
for k, record in ipairs(call('HMGET', keys.offers, unpack(at))) do
  local each, n = found[k], #calls + 1
  if record == each.record then
    calls[n], all[n], names[n], rejected[n] = each.of, at[k], each.name, each
    scores[2 * n - 1], scores[2 * n] = score, at[k]
    if each.is_owned then disowned[#disowned + 1] = at[k] end
  end
end
if #calls == 0 then return answers end

call('HDEL', keys.names, unpack(names)) -- first, since a full Redis does not refuse it; see parts/full_redis.lua
return write_rest(answers, calls, function()
  call('HDEL', keys.offers, unpack(all))
  if #disowned > 0 then disown_all_lazily(owned, now, disowned) end
  call('ZADD', keys.free, unpack(scores))
  for _, each in ipairs(rejected) do -- a repeated call gets the same answer for a minute, or as long as the offer lasts
    local remembered = string.format('%d', math.min(each.left, 60000))
    call('SET', offer[each.of], mark_offer(each.record, 'rejected'), 'PX', remembered)
    answers[each.of] = 1
  end
end)
