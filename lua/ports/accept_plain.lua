-- Accepts an offer of one port without a lease and labels: the short path, with few keys, that most calls take.
--
-- KEYS   offers HASH, free ZSET, ports HASH, fence STRING, events STREAM, offer STRING (of the
--        secret); of an owner: owned ZSET
-- ARGV   events, request, service, secret, the highest fence of the pool that the server saw, and the highest of all
--        pools; of an owner: owner
--
-- answer record  a new allocation
--        0       nothing was changed: take the long path, accept.lua
--        3       nothing was changed: this is an older state
-- errors none
--
-- Worst case: it always takes about as long.
local call = redis.call
-- include clock: read_clock
-- include fence: next_fence
-- include history: add_event
-- include ports/own_lazily: own_lazily
-- include record: allocation_record, parse_offer

local offers, free, ports, fence, events, offer, owned = unpack(KEYS)
local service, secret, seen, least, owner = unpack(ARGV, 3)
local now, microseconds = read_clock()

local record = call('GET', offer)
if not record then return 0 end
local of, name, port, count, expires, lease, mark, its_owner, labels = parse_offer(record)
local left = expires - now
-- As in find_offer, the clock decides, and the record must still be at its port.
if left <= 0 or of ~= service or count > 1 or lease or mark or labels or its_owner and its_owner ~= owner
  or call('HGET', offers, port) ~= record then return 0 end

-- A repeated call gets the same answer, so the secret is remembered for a minute, or for the rest of the offer's time
-- if that is shorter. At a thousand calls a second, a minute takes megabytes of Redis; half an hour would take
-- gigabytes. Either first write lets the script write even if Redis is full, see parts/full_redis.lua.
if left > 60000 then call('PEXPIRE', offer, '60000') else call('HDEL', offers, '') end
local number = next_fence(fence, microseconds, 1, seen, least)
if not number then
  call('PEXPIRE', offer, string.format('%d', left))
  return 3
end
local allocation = allocation_record(name, port, 1, now, number, nil, nil, secret, its_owner)
call('ZREM', free, port)
call('HDEL', offers, port)
call('HSET', ports, port, allocation)
if its_owner then own_lazily(owned, now, port, 1) end
add_event(events, 'allocated', name, port, 1, number, its_owner)
return allocation
