-- Claims the next ports of a service, one for each call's instance name: the short path, with few keys, that most
-- claims take.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH, ports HASH, leases ZSET, fence STRING,
--        events STREAM; of each call: offer STRING (of the secret); of an owner: owned ZSET
-- ARGV   service, how long a secret that the client supplied is remembered (ms); of each call, 64 at most: events,
--        request, name, secret, '1' if the client supplied the secret, lease (ms, '0': none), the highest fence of the
--        pool that the server saw, and the highest of all pools; of an owner, who makes one call: owner, and how many
--        ports it may hold in the pool ('0': any number)
--
-- answer of each call, one alone by itself:
--        record  a new allocation
--        0       nothing was changed: take the long path, claim.lua
--        3       nothing was changed: this is an older state
-- errors HALF_WRITTEN
--
-- Worst case: 64 calls: about 700 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include fence: highest_of, next_fence
-- include history: add_event
-- include ports/allocate: add_allocation, new_allocations, write_allocations
-- include ports/next_ports: take_fresh
-- include ports/own_lazily: is_at_quota, own_lazily
-- include ports/assign: assign_ports
-- include record: offer_record
-- include write_rest: write_rest

local service, free, fresh, names, offers, ports, leases, fence, events = unpack(KEYS)
local offer = {unpack(KEYS, 10)}
local of, remember = unpack(ARGV)
local n = math.floor((#ARGV - 2) / 8)
local owner, most = unpack(ARGV, 8 * n + 3)
local now, microseconds = read_clock()

local wanted, answers = {}, {}
for i = 1, n do
  local is_known = ARGV[8 * i - 1] == '1' and call('EXISTS', offer[i]) == 1
  wanted[i], answers[i] = not is_known and ARGV[8 * i - 3], 0
end
if owner and is_at_quota(offer[2], most, now) then return 0 end
local picked, ports_of, ended, used, runs = assign_ports(service, free, fresh, names, offers, now, wanted)
if #picked == 0 then return n == 1 and 0 or answers end

local new, named = {}, {}
for k, i in ipairs(picked) do
  new[k], named[2 * k - 1], named[2 * k] = wanted[i], wanted[i], ports_of[k]
end
call('HSET', names, unpack(named)) -- first, since a full Redis refuses it
return write_rest(function()
  local first = next_fence(fence, microseconds, #new, highest_of(9, 8, n), highest_of(10, 8, n))
  if not first then
    call('HDEL', names, unpack(new))
    for _, i in ipairs(picked) do answers[i] = 3 end
    return
  end
  local keys, all = {free = free, leases = leases, offers = offers, ports = ports}, new_allocations()
  for k, i in ipairs(picked) do
    local at = 8 * i - 5
    local name, secret, own, lease = unpack(ARGV, at + 2, at + 5)
    local number = k == 1 and first or string.format('%d', first + k - 1)
    if lease == '0' then lease = nil end
    local ends = lease and string.format('%d', now + lease)
    answers[i] = add_allocation(all, name, ports_of[k], 1, now, number, lease, ends, secret, owner, false,
      k > used and #ended == 0)
    if owner then own_lazily(offer[2], now, ports_of[k], 1, ends) end
    add_event(events, 'allocated', name, ports_of[k], 1, number, owner, ends, at)
    if own == '1' then -- remembered like an accepted offer, see claim.lua
      local expires = string.format('%d', now + remember)
      local record = offer_record(of, name, ports_of[k], 1, now, expires, nil, secret, 'claimed', owner)
      call('SET', offer[i], record, 'PX', remember)
    end
  end
  if #ended > 0 then call('HDEL', names, unpack(ended)) end
  if runs then take_fresh(fresh, runs, #picked - used) end
  write_allocations(keys, all)
end) or n == 1 and answers[1] or answers
