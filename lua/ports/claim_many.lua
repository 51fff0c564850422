-- Claims the next ports of a service for several calls that wait at the same time, as claim_any.lua does for one.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH, ports HASH, leases ZSET, fence STRING,
--        events STREAM; of each call: offer STRING (of the secret); of an owner: owned ZSET
-- ARGV   of each call, 64 at most: events, request, service, how long a secret that the client supplied is remembered
--        (ms), name, secret, '1' if the client supplied the secret, lease (ms, '0': none), the highest fence of the
--        pool that the server saw, and the highest of all pools; of an owner of all calls: owner, and how many ports it
--        may hold in the pool ('0': any number)
--
-- answer of each call, in their order:
--        record  a new allocation
--        0       nothing was changed: take the long path, claim.lua
--        3       nothing was changed: this is an older state
-- errors HALF_WRITTEN as the answer of a call: the script failed after its first change, and what became of the call is
--        unknown
--
-- Worst case: 64 calls with secrets of their own and leases: about 1 ms (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include fence: highest_of, next_fence
-- include history: add_event
-- include ports/allocate: add_allocation, new_allocations, write_allocations
-- include ports/assign: assign_ports
-- include ports/next_ports: take_fresh
-- include ports/own_lazily: may_hold, own_all_lazily
-- include record: offer_record
-- include write_rest: write_rest

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], names = KEYS[4], offers = KEYS[5], ports = KEYS[6],
  leases = KEYS[7], fence = KEYS[8], events = KEYS[9],
}
local offer = {unpack(KEYS, 10)}
local owned = #ARGV % 10 > 0 and table.remove(offer) or nil
local most, owner = owned and table.remove(ARGV), owned and table.remove(ARGV)
local now, microseconds = read_clock()

local wanted, answers = {}, {}
for i = 1, #offer do
  local is_known = ARGV[10 * i - 3] == '1' and (wanted[offer[i]] or call('EXISTS', offer[i]) == 1)
  wanted[i], wanted[offer[i]], answers[i] = not is_known and ARGV[10 * i - 5], true, 0
end
local assigned, ports, ended, used, runs = assign_ports(keys, now, wanted, owner and may_hold(owned, most, now))
if #assigned == 0 then return answers end

local new, named = {}, {}
for k, i in ipairs(assigned) do
  new[k], named[2 * k - 1], named[2 * k] = wanted[i], wanted[i], ports[k]
end
call('HSET', keys.names, unpack(named)) -- first, since a full Redis refuses it
return write_rest(answers, assigned, function()
  local first = next_fence(keys.fence, microseconds, #new, highest_of(9, 10, #offer), highest_of(10, 10, #offer))
  if not first then
    call('HDEL', keys.names, unpack(new))
    for _, i in ipairs(assigned) do answers[i] = 3 end
    return
  end
  local all, holds = new_allocations(), {}
  for k, i in ipairs(assigned) do
    local service, remember, name, secret, own, lease = unpack(ARGV, 10 * i - 7, 10 * i - 2)
    local port, number = ports[k], k == 1 and first or string.format('%d', first + k - 1)
    if lease == '0' then lease = nil end
    local ends = lease and string.format('%d', now + lease)
    answers[i] = add_allocation(all, name, port, 1, now, number, lease, ends, secret, owner, false, k > used)
    add_event(keys.events, 'allocated', name, port, 1, number, owner, ends, 10 * i - 9)
    holds[2 * k - 1], holds[2 * k] = ends or '9007199254740991', port
    if own == '1' then -- remembered like an accepted offer, see claim.lua
      local expires = string.format('%d', now + remember)
      local record = offer_record(service, name, port, 1, now, expires, nil, secret, 'claimed', owner)
      call('SET', offer[i], record, 'PX', remember)
    end
  end
  if #ended > 0 then call('HDEL', keys.names, unpack(ended)) end
  if runs then take_fresh(keys.fresh, runs, #assigned - used) end
  write_allocations(keys, all)
  if owner then own_all_lazily(owned, now, holds) end
end)
