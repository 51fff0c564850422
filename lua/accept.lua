-- Accepts an offer, which makes it an allocation.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, fence STRING, offer STRING (the secret's)
-- ARGV   service, secret
--
-- answer record    a new allocation
--        {record}  this secret's offer was accepted already: the same allocation
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_REJECTED
local service_key, free, offers, ports, fence, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local service, secret = ARGV[1], ARGV[2]
local call = redis.call

local state, record, name, port, expires = look_up(offer, offers, ports, service, secret)
if state == 'accepted' then return {record} end
if state == 'rejected' then return redis.error_reply('OFFER_REJECTED this offer was rejected already') end
if state ~= 'open' then return not_found(service_key, service) end

local allocation = '{"name":"' .. name .. '","port":' .. port .. ',"created":' .. now .. ',"fence":' .. call('INCR', fence) ..
  ',"secret":"' .. secret .. '"}'
call('ZREM', free, port)
call('HDEL', offers, port)
call('HSET', ports, port, allocation)
-- So that a repeated call gets the same answer, the secret is remembered for a minute, or the rest of the offer's time if
-- that is shorter: at a thousand calls a second that is megabytes of Redis, where half an hour would be gigabytes.
if expires - now > 60000 then call('PEXPIRE', offer, '60000') end
return allocation
