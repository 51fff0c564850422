-- Releases allocations of one port without a lease and labels while no call waits: the short path, with few keys, that
-- most calls take.
--
-- KEYS   free ZSET, names HASH, ports HASH, waitlist ZSET, events STREAM; of an owner: owned ZSET
-- ARGV   of each call, 64 at most: events, request, port or name, and the fences of which the allocation must have one,
--        each between spaces ('': any); of an owner, who makes one call: owner
--
-- answer of each call, one alone by itself:
--        1  released
--        0  nothing was changed: take the long path, release.lua
-- errors HALF_WRITTEN
--
-- Worst case: 64 calls: about 400 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include history: add_event
-- include ports/own_lazily: disown_lazily
-- include record: is_first_port, parse_allocation
-- include write_rest: write_rest

local free, names, ports, waitlist, events, owned = unpack(KEYS)
local n = math.floor(#ARGV / 4)
local owner = ARGV[4 * n + 1]
local now = read_clock()

-- The port of each call: of a name, what `names` has. A name is never all digits.
local holders, named, answers = {}, {}, {}
for i = 1, n do
  local holder = ARGV[4 * i - 1]
  if not string.find(holder, '^%d+$') then named[#named + 1] = holder end
  holders[i], answers[i] = holder, 0
end
if #named > 0 then
  for k, port in ipairs(call('HMGET', names, unpack(named))) do named[named[k]] = port end
end
local at, call_of = {}, {} -- of two calls of one port the second takes the long path
for i, holder in ipairs(holders) do
  local port = named[holder] == nil and holder or named[holder]
  if port and not call_of[port] then
    at[#at + 1], call_of[port] = port, i
  end
end

if #at == 0 or call('EXISTS', waitlist) == 1 then return n == 1 and 0 or answers end
local all, freed, scores, holds = {}, {}, {}, {}
for k, record in ipairs(call('HMGET', ports, unpack(at))) do
  if record and not is_first_port(record) then
    local port = at[k]
    local begin = 4 * call_of[port] - 3
    local fences = ARGV[begin + 3]
    local name, count, fence, lease, _, _, its_owner, labels = parse_allocation(record)
    if count == 1 and not lease and not labels and (not its_owner or its_owner == owner)
      and (fences == '' or string.find(fences, ' ' .. fence .. ' ', 1, true)) then
      all[#all + 1], freed[#freed + 1] = port, name
      scores[#scores + 1], scores[#scores + 2] = now, port
      holds[#all] = {call = call_of[port], begin = begin, name = name, fence = fence, owner = its_owner}
    end
  end
end
if #all == 0 then return n == 1 and 0 or answers end

call('HDEL', ports, unpack(all)) -- first, since a full Redis does not refuse it; see parts/full_redis.lua
return write_rest(function()
  call('ZADD', free, unpack(scores))
  call('HDEL', names, unpack(freed))
  for k, held in ipairs(holds) do
    if held.owner then disown_lazily(owned, now, all[k], 1) end
    add_event(events, 'released', held.name, all[k], 1, held.fence, held.owner, nil, held.begin)
    answers[held.call] = 1
  end
end) or n == 1 and answers[1] or answers
