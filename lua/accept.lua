-- Accepts an offer, which makes it an allocation.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, leases ZSET, fence STRING, offer STRING (the secret's)
-- ARGV   service, secret, how long the allocation lasts (ms, '0': as long as was wanted of the offer)
--
-- answer record    a new allocation
--        {record}  this secret's offer was accepted already: the same allocation
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_REJECTED
local service_key, free, offers, ports, leases, fence, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local service, secret, lasting = ARGV[1], ARGV[2], ARGV[3]
local call = redis.call
-- include clock
-- include secret
-- include allocate

local state, record, name, port, expires, count, lease = look_up(offer, secret)
if state == 'accepted' then return {record} end
if state == 'rejected' then return redis.error_reply('OFFER_REJECTED this offer was rejected already') end
if state ~= 'open' then
  -- include not_found
end

local allocation = allocate(name, port, count, now, call('INCR', fence), lasting ~= '0' and lasting or lease, secret)
-- So that a repeated call gets the same answer, the secret is remembered for a minute, or the rest of the offer's time if
-- that is shorter: at a thousand calls a second that is megabytes of Redis, where half an hour would be gigabytes.
if expires - now > 60000 then call('PEXPIRE', offer, '60000') end
return allocation
