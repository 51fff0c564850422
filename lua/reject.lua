-- Rejects an offer: its port and its name are free again at once.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, offer STRING (the secret's)
-- ARGV   service, secret
--
-- answer 1  rejected
--        0  it was rejected already
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_ACCEPTED
local service_key, free, names, offers, ports, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local service, secret = ARGV[1], ARGV[2]
local call = redis.call

local state, record, name, port, expires = look_up(offer, offers, ports, service, secret)
if state == 'rejected' then return 0 end
if state == 'accepted' then return redis.error_reply('OFFER_ACCEPTED this offer was accepted already') end
if state ~= 'open' then return not_found(service_key, service) end

call('ZADD', free, now, port)
call('HDEL', names, name)
call('HDEL', offers, port)
-- So that a repeated call gets the same answer, it is remembered for a minute, or the rest of the offer's time.
local rest = math.min(expires - now, 60000)
call('SET', offer, string.sub(record, 1, -2) .. ',"rejected":true}', 'PX', string.format('%d', rest))
return 1
