-- Releases the allocations of several calls that wait at the same time, as release_plain.lua does that of one.
--
-- KEYS   free ZSET, names HASH, ports HASH, waitlist ZSET, events STREAM; of an owner: owned ZSET
-- ARGV   of each call, 64 at most: events, request, port or name, the fence that the allocation must have ('': any); of
--        an owner of all calls: owner
--
-- answer of each call, in their order:
--        1  released
--        0  nothing was changed: take the long path, release.lua
-- errors HALF_WRITTEN as the answer of a call: the script failed after its first change, and what became of the call is
--        unknown
--
-- Worst case: 64 calls: about 400 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include history: add_event
-- include ports/find_many: find_ports
-- include ports/own_lazily: disown_all_lazily
-- include record: owner_part, parse_plain_allocation
-- include write_rest: write_rest

local free, names, ports, waitlist, events, owned = unpack(KEYS)
local owner = owned and table.remove(ARGV)
local of_owner = owner and owner_part(owner)
local now = read_clock()

local answers = {}
for i = 1, math.floor(#ARGV / 4) do answers[i] = 0 end
local at, call_of = find_ports({names = names}, #answers, 3, 4)
if #at == 0 or call('EXISTS', waitlist) == 1 then return answers end
local all, freed, fences, scores = {}, {}, {}, {}
local calls, disowned, owner_of = {}, {}, {}
for k, record in ipairs(call('HMGET', ports, unpack(at))) do
  local name, fence, is_owned = parse_plain_allocation(record or '', of_owner)
  local required = ARGV[4 * call_of[at[k]]]
  if name and (required == '' or required == fence) then
    local n = #all + 1
    calls[n], all[n], freed[n], fences[n] = call_of[at[k]], at[k], name, fence
    scores[2 * n - 1], scores[2 * n] = now, at[k]
    if is_owned then disowned[#disowned + 1], owner_of[n] = at[k], owner end
  end
end
if #all == 0 then return answers end

call('HDEL', ports, unpack(all)) -- first, since a full Redis does not refuse it; see parts/full_redis.lua
return write_rest(answers, calls, function()
  call('ZADD', free, unpack(scores))
  call('HDEL', names, unpack(freed))
  if #disowned > 0 then disown_all_lazily(owned, now, disowned) end
  for k, port in ipairs(all) do
    local i = calls[k]
    add_event(events, 'released', freed[k], port, 1, fences[k], owner_of[k], nil, 4 * i - 3)
    answers[i] = 1
  end
end)
