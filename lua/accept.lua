-- Accepts an offer, which makes it an allocation.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, fence STRING, offer STRING (the secret's), and for a lease also leases
--        ZSET, resting ZSET, line ZSET, beats ZSET, lines ZSET
-- ARGV   service, secret, how long the allocation lasts (ms, '0': as long as was wanted of the offer), the highest fence of the
--        pool that the server saw, and the highest of all
--
-- answer record    a new allocation
--        {record}  this secret's offer was accepted already: the same allocation
--        0         nothing is done: the keys for a lease are missing
--        3         nothing is done: the state is behind
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_REJECTED
--
-- At worst a leased block of 100 ports, while 256 places in line were lost: about 1 ms where an offer takes 10 us.
local service_key, free, offers, ports, fence, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local leases, resting, line, beats, lines = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local service, secret, lasting, seen, least = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local call = redis.call
-- include clock
-- include secret
-- include next_fence
-- include allocate

local state, record, name, port, expires, count, lease = look_up(offer, secret)
if state == 'accepted' then return {record} end
if state == 'rejected' then return redis.error_reply('OFFER_REJECTED this offer was rejected already') end
if state ~= 'open' then
  -- include not_found
end

lease = lasting ~= '0' and lasting or lease
if lease and not leases then return 0 end
-- So that a repeated call gets the same answer, the secret is remembered for a minute, or the rest of the offer's time if
-- that is shorter: at a thousand calls a second that is megabytes of Redis, where half an hour would be gigabytes. Either way the
-- first change is one that a full Redis does not refuse, and so it refuses none after it.
if expires - now > 60000 then call('PEXPIRE', offer, '60000') else call('HDEL', offers, '') end
local number = next_fence(1)
if not number then
  call('PEXPIRE', offer, string.format('%d', expires - now))
  return 3
end
local allocation = allocate(name, port, count, now, string.format('%d', number), lease, secret)
if lease then
  -- include tell
end
return allocation
