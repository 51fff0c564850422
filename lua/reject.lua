-- Rejects an offer: its ports and its name are free again at once. A port that was found in use is kept out for a while.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, quarantine ZSET, offer STRING (the secret's)
-- ARGV   service, secret, how long the ports are kept out (ms, '0': not at all)
--
-- answer 1  rejected
--        0  it was rejected already
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_ACCEPTED
local service_key, free, names, offers, ports, quarantine, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local service, secret, kept_out = ARGV[1], ARGV[2], ARGV[3]
local call = redis.call
-- include clock
-- include secret

local state, record, name, port, expires, count = look_up(offer, secret)
if state == 'rejected' then return 0 end
if state == 'accepted' then return redis.error_reply('OFFER_ACCEPTED this offer was accepted already') end
if state ~= 'open' then
  -- include not_found
end

-- A port is free once the cool-down is over from its score on, and nobody has used this one.
local score = string.format('%d', now + kept_out - call('HGET', service_key, 'cooldown'))
if kept_out ~= '0' then call('ZREMRANGEBYSCORE', quarantine, '-inf', now) end
for i = 0, count - 1 do
  local each = string.format('%d', port + i)
  call('ZADD', free, score, each)
  if kept_out ~= '0' then call('ZADD', quarantine, score, each) end
end
call('HDEL', names, name)
call('HDEL', offers, port)
-- So that a repeated call gets the same answer, it is remembered for a minute, or the rest of the offer's time.
local rest = math.min(expires - now, 60000)
call('SET', offer, string.sub(record, 1, -2) .. ',"rejected":true}', 'PX', string.format('%d', rest))
return 1
