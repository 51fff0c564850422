-- Offers the next port of a service to one instance name: the short path, with few keys, that most offers take.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH, offer STRING (of the secret); of an
--        owner: owned ZSET
-- ARGV   service, how long the offer is open (ms), name, secret, '1' if the secret may be known already; of an
--        owner: owner, and how many ports it may hold in the pool ('0': any number)
--
-- answer record  a new offer
--        0       nothing was changed: take the long path, offer.lua
-- errors none
--
-- Worst case: it always takes about as long.
local call = redis.call
-- include clock: read_clock
-- include ports/next_port: next_port
-- include ports/own_lazily: is_at_quota, own_lazily
-- include record: has_labels, name_of, offer_record

local service, free, fresh, names, offers, offer, owned = unpack(KEYS)
local of, ttl, name, secret, may_be_known, owner, most = unpack(ARGV)
local now = read_clock()

if may_be_known == '1' and call('EXISTS', offer) == 1 then return 0 end
if owner and is_at_quota(owned, most, now) then return 0 end
local port, run = next_port(service, free, fresh, now)
-- HSETNX is the last check and the first write. An offer or a lease of this name that ended is cleared on the long
-- path, as is a lease of the port that ended, or an offer with labels.
if not port or call('HSETNX', names, name, port) == 0 then return 0 end

local expires = string.format('%d', now + ttl)
local record = offer_record(of, name, port, 1, now, expires, nil, secret, nil, owner)
if call('HSETNX', offers, port, record) == 0 then
  local ended = call('HGET', offers, port)
  if ended == 'leased' or has_labels(ended) then
    call('HDEL', names, name)
    return 0
  end
  call('HDEL', names, name_of(ended))
  call('HSET', offers, port, record)
end
if run == port then
  call('ZREM', fresh, port)
elseif run then
  call('ZADD', fresh, string.format('%d', port + 1), run)
end
call('ZADD', free, expires, port)
if owner then own_lazily(owned, now, port, 1, expires) end
call('SET', offer, record, 'PXAT', expires)
return record
