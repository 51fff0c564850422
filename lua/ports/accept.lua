-- Accepts an offer, which makes it an allocation. Most go the short way of accept_plain.lua.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, fence STRING, offer STRING (the secret's), leases ZSET,
--        resting ZSET, waitlist ZSET, heartbeats ZSET, waitlists ZSET
-- ARGV   service, secret, the highest fence of the pool that the server saw, the highest of all, and how long the allocation lasts
--        (ms, '0': as long as was asked for with the offer)
--
-- answer record    a new allocation
--        {record}  this secret's offer was accepted already: the same allocation
--        3         nothing is done: the state is behind
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_REJECTED
--
-- At worst a leased block of 100 ports, while 256 places in line were lost: about 1 ms where an offer takes 10 us.
local call = redis.call
-- include ports/allocate: allocate
-- include clock: read_clock
-- include fence: next_fence
-- include ports/find: find_offer, no_offer
-- include turns: tell_of_change

local keys = {
  service = KEYS[1], free = KEYS[2], offers = KEYS[3], ports = KEYS[4], fence = KEYS[5], offer = KEYS[6],
  leases = KEYS[7], resting = KEYS[8], waitlist = KEYS[9], heartbeats = KEYS[10], waitlists = KEYS[11],
}
local service, secret, seen, least, lasting = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now, time = read_clock()

local state, record, name, port, count, expires, lease = find_offer(keys, now, service, keys.offer, secret)
if state == 'accepted' then return {record} end
if state == 'rejected' then return redis.error_reply('OFFER_REJECTED this offer was rejected already') end
if state ~= 'open' then return redis.error_reply(no_offer(keys, service)) end

lease = lasting ~= '0' and lasting or lease
-- Either way the first change is one that a full Redis does not refuse, and so it refuses none after it; see accept_plain.lua.
if expires - now > 60000 then call('PEXPIRE', keys.offer, '60000') else call('HDEL', keys.offers, '') end
local fence = next_fence(keys.fence, time, 1, seen, least)
if not fence then
  call('PEXPIRE', keys.offer, string.format('%d', expires - now))
  return 3
end
local ends = lease and string.format('%d', now + lease)
local allocation = allocate(keys, name, port, count, now, fence, lease, ends, secret)
if lease then tell_of_change(keys, now, service) end
return allocation
