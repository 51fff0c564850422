-- Accepts an offer of one port without a lease: the short way that most go, of few keys.
--
-- KEYS   offers HASH, free ZSET, ports HASH, fence STRING, offer STRING (the secret's)
-- ARGV   service, secret, the highest fence of the pool that the server saw, and the highest of all
--
-- answer record  a new allocation
--        0       nothing is done: it is to go the long way, accept.lua
--        3       nothing is done: the state is behind
-- errors none
--
-- There is no case that takes much longer than another.
local call = redis.call
-- include clock: read_clock
-- include fence: next_fence
-- include record: allocation_record, parse_offer

local offers, free, ports, fence, offer = unpack(KEYS)
local service, secret, seen, least = unpack(ARGV)
local now, time = read_clock()

local record = call('GET', offer)
if not record then return 0 end
local of, name, port, count, expires, lease, mark = parse_offer(record)
local left = expires - now
-- See find_offer: the clock decides, and the record must still stand at its port.
if left <= 0 or of ~= service or count > 1 or lease or mark or call('HGET', offers, port) ~= record then return 0 end

-- So that a repeated call gets the same answer, the secret is remembered for a minute, or the rest of the offer's time if
-- that is shorter: at a thousand calls a second that is megabytes of Redis, where half an hour would be gigabytes. Either way the
-- first change is one that a full Redis does not refuse, and so it refuses none after it.
if left > 60000 then call('PEXPIRE', offer, '60000') else call('HDEL', offers, '') end
local number = next_fence(fence, time, 1, seen, least)
if not number then
  call('PEXPIRE', offer, string.format('%d', left))
  return 3
end
local allocation = allocation_record(name, port, 1, now, number, nil, nil, secret)
call('ZREM', free, port)
call('HDEL', offers, port)
call('HSET', ports, port, allocation)
return allocation
