-- Releases an allocation of one port without a lease and labels while no call waits: the short path, with few keys,
-- that most calls take.
--
-- KEYS   free ZSET, names HASH, ports HASH, waitlist ZSET, events STREAM; of an owner: owned ZSET
-- ARGV   events, request, port or name, then the fences of which the allocation must have one (one of '': any); of an
--        owner, last: owner
--
-- answer 1  released
--        0  nothing was changed: take the long path, release.lua
-- errors none
--
-- Worst case: it always takes about as long.
local call = redis.call
-- include clock: read_clock
-- include history: add_event
-- include ports/own_lazily: disown_lazily
-- include record: is_first_port, parse_allocation

local free, names, ports, waitlist, events, owned = unpack(KEYS)
local holder, owner = ARGV[3], owned and table.remove(ARGV)
local now = read_clock()

-- What is all digits is a port, though there may be a name like it.
local port = string.find(holder, '^%d+$') and holder or call('HGET', names, holder)
local allocation = port and call('HGET', ports, port)
if not allocation or is_first_port(allocation) or call('EXISTS', waitlist) == 1 then return 0 end
local name, count, fence, lease, _, _, its_owner, labels = parse_allocation(allocation)
local matches = ARGV[4] == ''
for i = 4, #ARGV do
  matches = matches or ARGV[i] == fence
end
if count > 1 or lease or labels or not matches or its_owner and its_owner ~= owner then return 0 end

call('HDEL', ports, port) -- first, since a full Redis does not refuse it; see parts/full_redis.lua
call('ZADD', free, now, port)
call('HDEL', names, name)
if its_owner then disown_lazily(owned, now, port, 1) end
add_event(events, 'released', name, port, 1, fence, its_owner)
return 1
