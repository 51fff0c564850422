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
local call = redis.call
-- include clock: read_clock
-- include next_port: next_port, shorten_run
-- include record: name_of, offer_record

local keys = {service = KEYS[1], free = KEYS[2], fresh = KEYS[3], names = KEYS[4], offers = KEYS[5], offer = KEYS[6]}
local service, ttl, name, secret, may_be_known = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now = read_clock()

if may_be_known == '1' and call('EXISTS', keys.offer) == 1 then return 0 end
local port, run = next_port(keys, now)
-- To take the name is the last check and the first write, in one command. A hold of it that ran out may be in the way, which is
-- cleared on the long way, as is a lease of the port that ran out.
if not port or call('HSETNX', keys.names, name, port) == 0 then return 0 end

local expires = string.format('%d', now + ttl)
local record = offer_record(service, name, port, 1, now, expires, nil, secret)
if call('HSETNX', keys.offers, port, record) == 0 then
  local over = call('HGET', keys.offers, port)
  if over == 'leased' then
    call('HDEL', keys.names, name)
    return 0
  end
  call('HDEL', keys.names, name_of(over))
  call('HSET', keys.offers, port, record)
end
if run then shorten_run(keys, port, run) end
call('ZADD', keys.free, expires, port)
call('SET', keys.offer, record, 'PXAT', expires)
return record
