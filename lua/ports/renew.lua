-- Starts the lease of an allocation again, from now on. An allocation without a lease gets one: the service's default,
-- if none is given. A lease that is longer than the service allows by now is shortened.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET, waitlist ZSET,
--        heartbeats ZSET, waitlists ZSET, events STREAM, labels HASH; of an owner: owned ZSET
-- ARGV   events, request, service, port or name, the secret that the allocation must have, lease (ms, '0': as before),
--        the owner who calls ('': none); of an owner: owner, '1' if the allocation must be its
--
-- answer record, with its labels behind it
--        {'owner', owner}  nothing was changed: call it again with the key of this owner, whose allocation it is
-- errors SERVICE_NOT_FOUND, PORT_NOT_FOUND, SECRET_MISMATCH, NOT_OWNER, INVALID lease detail
--
-- Worst case: a block of 100 ports while 256 positions were lost: about 1 ms (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include history: add_event
-- include labels: with_labels
-- include lease_bounds: lease_of_renewal
-- include owner: add_holds, check_owner, own_ports
-- include ports/allocate: allocate
-- include ports/find: find_allocation
-- include ports/notify_lazily: notify_of_leases
-- include record: parse_allocation

local keys = {
  service = KEYS[1], free = KEYS[2], names = KEYS[3], offers = KEYS[4], ports = KEYS[5], leases = KEYS[6],
  resting = KEYS[7], waitlist = KEYS[8], heartbeats = KEYS[9], waitlists = KEYS[10],
  events = KEYS[11], labels = KEYS[12], owned = KEYS[13],
}
local service, holder, secret, new_lease, caller, owner, must_own = unpack(ARGV, 3)
local now = read_clock()

local port, allocation, err = find_allocation(keys, now, service, holder)
if err then return redis.error_reply(err) end
local name, count, fence, lease, its_secret, created, its_owner, labels = parse_allocation(allocation)
if secret ~= its_secret then
  return redis.error_reply('SECRET_MISMATCH the allocation of ' .. holder .. ' has another secret')
end
local refusal = check_owner(its_owner, owner, must_own, 'port ' .. port)
if refusal then return refusal end
local its_lease, wrong = lease_of_renewal(call('HGET', keys.service, 'lease_bounds'), new_lease, lease)
if not its_lease then return redis.error_reply('INVALID lease ' .. wrong) end

local ends = string.format('%d', now + its_lease)
local record = allocate(keys, name, port, count, created, fence, its_lease, ends, secret, its_owner, labels)
if its_owner then own_ports(keys, now, add_holds({}, port, count, ends)) end
if its_owner and its_owner ~= caller then
  add_event(keys.events, 'renewed', name, port, count, fence, its_owner, ends)
end
if call('EXISTS', keys.waitlist) == 1 then notify_of_leases(keys, now, service) end
return with_labels(keys, port, record)
