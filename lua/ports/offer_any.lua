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
-- include ports/next_port: next_port
-- include record: name_of, offer_record

local service, free, fresh, names, offers, offer = unpack(KEYS)
local of, ttl, name, secret, may_be_known = unpack(ARGV)
local now = read_clock()

if may_be_known == '1' and call('EXISTS', offer) == 1 then return 0 end
local port, run = next_port(service, free, fresh, now)
-- To take the name is the last check and the first write, in one command. A hold of it that ran out may be in the way, which is
-- cleared on the long way, as is a lease of the port that ran out.
if not port or call('HSETNX', names, name, port) == 0 then return 0 end

local expires = string.format('%d', now + ttl)
local record = offer_record(of, name, port, 1, now, expires, nil, secret)
if call('HSETNX', offers, port, record) == 0 then
  local over = call('HGET', offers, port)
  if over == 'leased' then
    call('HDEL', names, name)
    return 0
  end
  call('HDEL', names, name_of(over))
  call('HSET', offers, port, record)
end
if run == port then
  call('ZREM', fresh, port)
elseif run then
  call('ZADD', fresh, string.format('%d', port + 1), run)
end
call('ZADD', free, expires, port)
call('SET', offer, record, 'PXAT', expires)
return record
