-- Rejects an offer: its ports and its name are free again at once. A port that was found in use is kept out for a while.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET, rest HASH, fresh ZSET,
--        room ZSET, line ZSET, beats ZSET, lines ZSET, offer STRING (the secret's)
-- ARGV   service, secret, how long the ports are kept out (ms, '0': not at all)
--
-- answer 1  rejected
--        0  it was rejected already
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_ACCEPTED
--
-- At worst a block of 100 ports, while 256 places in line were lost: about 600 us where an offer takes 10 us.
local service_key, free, names, offers, ports, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local resting, rest, fresh, room, line, beats = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local lines, offer = KEYS[13], KEYS[14]
local service, secret, kept_out = ARGV[1], ARGV[2], ARGV[3]
local call = redis.call
-- include clock
-- include secret
-- include rest

local state, record, name, port, expires, count = look_up(offer, secret)
if state == 'rejected' then return 0 end
if state == 'accepted' then return redis.error_reply('OFFER_ACCEPTED this offer was accepted already') end
if state ~= 'open' then
  -- include not_found
end

-- A port is free once the cool-down is over from its score on, and nobody has used this one.
local back = string.format('%d', now - call('HGET', service_key, 'cooldown'))
local until_then, all, scores, at_rest = string.format('%d', now + kept_out), {}, {}, {}
for i = 0, count - 1 do
  local each = string.format('%d', port + i)
  all[i + 1] = each
  scores[2 * i + 1], scores[2 * i + 2] = back, each
  at_rest[2 * i + 1], at_rest[2 * i + 2] = each, until_then
end
call('HDEL', names, name) -- the first change, since a full Redis does not refuse it, and so none after it
call('HDEL', offers, port)
if kept_out == '0' then
  call('ZADD', free, unpack(scores))
else
  call('ZREM', free, unpack(all))
  let_rest(at_rest)
end
-- So that a repeated call gets the same answer, it is remembered for a minute, or the rest of the offer's time.
local remembered = math.min(expires - now, 60000)
call('SET', offer, string.sub(record, 1, -2) .. ',"rejected":true}', 'PX', string.format('%d', remembered))
if call('EXISTS', line) == 1 then
  -- include tell_of_free
end
return 1
