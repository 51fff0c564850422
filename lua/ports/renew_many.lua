-- Starts the leases of several calls that wait at the same time again, as renew.lua does that of one.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET, waitlist ZSET,
--        heartbeats ZSET, waitlists ZSET, events STREAM, labels HASH; of an owner: owned ZSET
-- ARGV   of each call, 64 at most: events, request, service, port or name, the secret that the allocation must have,
--        lease (ms, '0': as before), the owner who calls ('': none); of an owner of all calls: owner, '1' if the
--        allocation must be its
--
-- answer of each call, in their order:
--        record  of its allocation
--        0       nothing was changed: call renew.lua, as for a block, labels, or an error
-- errors HALF_WRITTEN as the answer of a call: the script failed after its first change, and what became of the call is
--        unknown
--
-- Worst case: 64 calls: about 800 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include history: add_event
-- include lease_bounds: lease_of_renewal
-- include ports/allocate: add_allocation, new_allocations, write_allocations
-- include ports/find_many: find_ports
-- include ports/own_lazily: own_all_lazily
-- include record: is_first_port, is_live, parse_allocation
-- include write_rest: write_rest

local keys = {
  service = KEYS[1], free = KEYS[2], names = KEYS[3], offers = KEYS[4], ports = KEYS[5], leases = KEYS[6],
  resting = KEYS[7], waitlist = KEYS[8], heartbeats = KEYS[9], waitlists = KEYS[10],
  events = KEYS[11], labels = KEYS[12], owned = KEYS[13],
}
local owner = keys.owned and ARGV[#ARGV - 1]
local now = read_clock()

local answers = {}
for i = 1, math.floor(#ARGV / 7) do answers[i] = 0 end
local cooldown, lease_bounds = unpack(call('HMGET', keys.service, 'cooldown', 'lease_bounds'))
if not cooldown or call('EXISTS', keys.waitlist) == 1 then return answers end
local at, call_of = find_ports(keys, #answers, 4, 7)
if #at == 0 then return answers end

local calls, all, holds, renewed = {}, new_allocations(), {}, {}
for k, record in ipairs(call('HMGET', keys.ports, unpack(at))) do
  local i, port = call_of[at[k]], at[k]
  if record and not is_first_port(record) and is_live(record, now) then
    local asked_secret, asked_lease, caller = unpack(ARGV, 7 * i - 2, 7 * i)
    local name, count, fence, lease, secret, created, its_owner, labels = parse_allocation(record)
    lease = lease_of_renewal(lease_bounds, asked_lease, lease)
    if secret == asked_secret and lease and count == 1 and not labels and (not its_owner or its_owner == owner) then
      local ends = string.format('%d', now + lease)
      calls[#calls + 1] = i
      answers[i] = add_allocation(all, name, port, 1, created, fence, lease, ends, secret, its_owner)
      if its_owner then holds[#holds + 1], holds[#holds + 2] = ends, port end
      if its_owner and its_owner ~= caller then
        renewed[#renewed + 1] = {'renewed', name, port, 1, fence, its_owner, ends, 7 * i - 6}
      end
    end
  end
end
if #calls == 0 then return answers end

call('HDEL', keys.ports, '') -- first, since a full Redis does not refuse it; see parts/full_redis.lua
return write_rest(answers, calls, function()
  write_allocations(keys, all)
  if #holds > 0 then own_all_lazily(keys.owned, now, holds) end
  for _, event in ipairs(renewed) do add_event(keys.events, unpack(event)) end
end)
