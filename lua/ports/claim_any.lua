-- Claims the next port of a service for one instance name: the short path, with few keys, that most claims take.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH, ports HASH, leases ZSET, fence STRING,
--        events STREAM, offer STRING (of the secret); of an owner: owned ZSET
-- ARGV   events, request, service, how long a secret that the client supplied is remembered (ms), name, secret, '1' if
--        the client supplied the secret, lease (ms, '0': none), the highest fence of the pool that the server saw, and
--        the highest of all pools; of an owner: owner, and how many ports it may hold in the pool ('0': any number)
--
-- answer record  a new allocation
--        0       nothing was changed: take the long path, claim.lua
--        3       nothing was changed: this is an older state
-- errors none
--
-- Worst case: it always takes about as long.
local call = redis.call
-- include clock: read_clock
-- include fence: next_fence
-- include history: add_event
-- include ports/next_port: next_port
-- include ports/own_lazily: is_at_quota, own_lazily
-- include record: allocation_record, has_labels, name_of, offer_record

local service, free, fresh, names, offers, ports, leases, fence, events, offer, owned = unpack(KEYS)
local of, remember, name, secret, own, lease, seen, least, owner, most = unpack(ARGV, 3)
local now, microseconds = read_clock()

if own == '1' and call('EXISTS', offer) == 1 then return 0 end
if owner and is_at_quota(owned, most, now) then return 0 end
local port, run = next_port(service, free, fresh, now)
local ended = port and call('HGET', offers, port)
-- HSETNX is the last check and the first write. An offer or a lease of this name that ended is cleared on the long
-- path, as is a lease of the port that ended, or an offer with labels.
if not port or ended == 'leased' or ended and has_labels(ended)
  or call('HSETNX', names, name, port) == 0 then return 0 end
local number = next_fence(fence, microseconds, 1, seen, least)
if not number then
  call('HDEL', names, name)
  return 3
end

if ended then
  call('HDEL', names, name_of(ended))
  call('HDEL', offers, port)
end
if run == port then
  call('ZREM', fresh, port)
elseif run then
  call('ZADD', fresh, string.format('%d', port + 1), run)
end
local ends
if lease == '0' then
  lease = nil
  if not run then call('ZREM', free, port) end
else
  ends = string.format('%d', now + lease)
  call('ZADD', free, ends, port)
  call('ZADD', leases, ends, port)
  call('HSET', offers, port, 'leased') -- tells the next holder that there is a lease to clear
end
local record = allocation_record(name, port, 1, now, number, lease, ends, secret, owner)
call('HSET', ports, port, record)
if owner then own_lazily(owned, now, port, 1, ends) end
add_event(events, 'allocated', name, port, 1, number, owner, ends)
if own == '1' then -- remembered like an accepted offer, see claim.lua
  local expires = string.format('%d', now + remember)
  call('SET', offer, offer_record(of, name, port, 1, now, expires, nil, secret, 'claimed', owner), 'PX', remember)
end
return record
