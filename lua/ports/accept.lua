-- Accepts an offer, which makes it an allocation. Most calls take the short path of accept_plain.lua.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, fence STRING, offer STRING (of the secret), leases ZSET,
--        resting ZSET, waitlist ZSET, heartbeats ZSET, waitlists ZSET, events STREAM, labels HASH;
--        of an owner: owned ZSET
-- ARGV   events, request, service, secret, the highest fence of the pool that the server saw, the highest of all
--        pools, and the lease (ms, '0': the one that the offer was requested with); of an owner: owner, '1' if the
--        offer must be its
--
-- answer record    a new allocation, with its labels behind it
--        {record}  the offer was accepted already: the same allocation
--        3         nothing was changed: this is an older state
--        {'owner', owner}  nothing was changed: call it again with the key of this owner, whose offer it is
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_REJECTED, NOT_OWNER, INVALID lease detail
--
-- Worst case: a leased block of 100 ports while 256 positions were lost: about 1 ms (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include fence: next_fence
-- include full_redis: write_though_full
-- include history: add_event
-- include labels: with_labels
-- include lease_bounds: parse_bounds, too_long
-- include owner: add_holds, check_owner, own_ports
-- include ports/allocate: allocate
-- include ports/find: find_offer, no_offer
-- include ports/notify_lazily: notify_of_leases
-- include record: has_labels

local keys = {
  service = KEYS[1], free = KEYS[2], offers = KEYS[3], ports = KEYS[4], fence = KEYS[5], offer = KEYS[6],
  leases = KEYS[7], resting = KEYS[8], waitlist = KEYS[9], heartbeats = KEYS[10], waitlists = KEYS[11],
  events = KEYS[12], labels = KEYS[13], owned = KEYS[14],
}
local service, secret, seen, least, new_lease, owner, must_own = unpack(ARGV, 3)
local now, microseconds = read_clock()

local state, record, name, port, count, expires, lease, its_owner =
  find_offer(keys, now, service, keys.offer, secret)
local refusal = check_owner(its_owner, owner, must_own, 'the offer')
if refusal then return refusal end
if state == 'accepted' then return {with_labels(keys, port, record)} end
if state == 'rejected' then return redis.error_reply('OFFER_REJECTED this offer was rejected already') end
if state ~= 'open' then return redis.error_reply(no_offer(keys, service)) end
if new_lease ~= '0' then
  local _, longest = parse_bounds(call('HGET', keys.service, 'lease_bounds'))
  local wrong = too_long(new_lease, longest)
  if wrong then return redis.error_reply('INVALID lease ' .. wrong) end
end

-- A repeated call gets the same answer for a minute, or for the rest of the offer's time; see accept_plain.lua.
if expires - now > 60000 then call('PEXPIRE', keys.offer, '60000') else write_though_full(keys.offers) end
local fence = next_fence(keys.fence, microseconds, 1, seen, least)
if not fence then
  call('PEXPIRE', keys.offer, string.format('%d', expires - now))
  return 3
end
if new_lease ~= '0' then lease = new_lease end
local ends = lease and string.format('%d', now + lease)
local allocation = allocate(keys, name, port, count, now, fence, lease, ends, secret, its_owner, has_labels(record))
if its_owner then own_ports(keys, now, add_holds({}, port, count, ends)) end
add_event(keys.events, 'allocated', name, port, count, fence, its_owner, ends)
if lease and call('EXISTS', keys.waitlist) == 1 then notify_of_leases(keys, now, service) end
return with_labels(keys, port, allocation)
