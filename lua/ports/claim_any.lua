-- Claims the next port of a service for one instance name: the short way that most claims go, of few keys.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH, ports HASH, leases ZSET, fence STRING, offer STRING
--        (the secret's)
-- ARGV   service, how long a secret of the caller's own is remembered (ms), name, secret, '1' if the secret is the caller's own,
--        how long the allocation lasts (ms, '0': it is to last), the highest fence of the pool that the server saw, and the
--        highest of all
--
-- answer record  a new allocation
--        0       nothing is done: it is to go the long way, claim.lua
--        3       nothing is done: the state is behind
-- errors none
--
-- There is no case that takes much longer than another.
local call = redis.call
-- include clock: read_clock
-- include fence: next_fence
-- include ports/next_port: next_port
-- include record: allocation_record, name_of, offer_record

local service, free, fresh, names, offers, ports, leases, fence, offer = unpack(KEYS)
local of, remember, name, secret, own, lease, seen, least = unpack(ARGV)
local now, time = read_clock()

if own == '1' and call('EXISTS', offer) == 1 then return 0 end
local port, run = next_port(service, free, fresh, now)
local over = port and call('HGET', offers, port)
-- To take the name is the last check and the first write. What a hold of it, or a lease of the port, has left is cleared on the
-- long way.
if not port or over == 'leased' or call('HSETNX', names, name, port) == 0 then return 0 end
local number = next_fence(fence, time, 1, seen, least)
if not number then
  call('HDEL', names, name)
  return 3
end

if over then
  call('HDEL', names, name_of(over))
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
  call('HSET', offers, port, 'leased') -- so that the next holder finds that there is something to clear
end
local record = allocation_record(name, port, 1, now, number, lease, ends, secret)
call('HSET', ports, port, record)
if own == '1' then -- remembered like an accepted offer; see claim.lua
  local expires = string.format('%d', now + remember)
  call('SET', offer, offer_record(of, name, port, 1, now, expires, nil, secret, 'claimed'), 'PX', remember)
end
return record
