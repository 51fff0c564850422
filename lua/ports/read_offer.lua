-- Reads the offer of a secret. Changes nothing.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, offer STRING (of the secret), labels HASH
-- ARGV   service, secret; the owner whose the offer must be, if it has one
--
-- answer record, with its labels behind it
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_ACCEPTED, OFFER_REJECTED, NOT_OWNER
--
-- Worst case: a block of 100 ports: about 130 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include labels: with_labels
-- include owner: check_owner
-- include ports/find: find_offer, no_offer

local keys = {
  service = KEYS[1], free = KEYS[2], offers = KEYS[3], ports = KEYS[4], offer = KEYS[5], labels = KEYS[6],
}
local service, secret, owner = unpack(ARGV)
local now = read_clock()

local state, record, _, port, _, _, _, its_owner = find_offer(keys, now, service, keys.offer, secret)
local refusal = owner and check_owner(its_owner, owner, '1', 'the offer')
if refusal then return refusal end
if state == 'accepted' then return redis.error_reply('OFFER_ACCEPTED this offer was accepted already') end
if state == 'rejected' then return redis.error_reply('OFFER_REJECTED this offer was rejected already') end
if state ~= 'open' then return redis.error_reply(no_offer(keys, service)) end
return with_labels(keys, port, record)
