-- Offers the next port of a service to one instance name: the short way that most offers go, of few keys.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH, offer STRING (the secret's)
-- ARGV   service, how long the offer is open (ms), name, secret, '1' if the secret may be known already
--
-- answer record  a new offer
--        0       nothing is done: it is to go the long way, offer.lua
-- errors none
--
-- There is no case that takes much longer than another.
local service_key, free, fresh, names, offers, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local service, ttl, name, secret, may_be_known = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local call = redis.call
-- include clock
-- include service

if not cooldown or waiting or changing or rests and tonumber(rests) <= tonumber(now) then return 0 end
if may_be_known == '1' and call('EXISTS', offer) == 1 then return 0 end
-- include any
-- To take the name is the last check and the first write, in one command. A hold of it that ran out may be in the way, which is
-- cleared on the long way, as is a lease of the port that ran out.
if not port or call('HSETNX', names, name, port) == 0 then return 0 end
-- include offer_record

local record = offer_record(name, port, 1, nil, secret)
if call('HSETNX', offers, port, record) == 0 then
  local over = call('HGET', offers, port)
  if over == 'leased' then
    call('HDEL', names, name)
    return 0
  end
  call('HDEL', names, string.match(over, '"name":"([^"]+)"'))
  call('HSET', offers, port, record)
end
if run and run[1] == port then
  call('ZREM', fresh, port)
elseif run then
  call('ZADD', fresh, string.format('%d', port + 1), run[1])
end
call('ZADD', free, expires, port)
call('SET', offer, record, 'PXAT', expires)
return record
