-- Reads the offer that a secret opens. Changes nothing.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, offer STRING (the secret's)
-- ARGV   service, secret
--
-- answer record
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_ACCEPTED, OFFER_REJECTED
--
-- At worst a block of 100 ports: about 130 us where an offer takes 10 us.
local service_key, free, offers, ports, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local service, secret = ARGV[1], ARGV[2]
local call = redis.call
-- include clock
-- include secret

local state, record = look_up(offer, secret)
if state == 'accepted' then return redis.error_reply('OFFER_ACCEPTED this offer was accepted already') end
if state == 'rejected' then return redis.error_reply('OFFER_REJECTED this offer was rejected already') end
if state ~= 'open' then
  -- include not_found
end
return record
