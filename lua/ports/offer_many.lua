-- Offers the next ports of a service to several calls that wait at the same time, as offer_any.lua does to one.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH; of each call: offer STRING (of the secret);
--        of an owner: owned ZSET
-- ARGV   service, how long the offers are open (ms); of each call, 64 at most: name, secret, '1' if the secret may be
--        known already; of an owner of all calls: owner, and how many ports it may hold in the pool ('0': any number)
--
-- answer of each call, in their order:
--        record  a new offer
--        0       nothing was changed: take the long path, offer.lua
-- errors HALF_WRITTEN as the answer of a call: the script failed after its first change, and what became of the call is
--        unknown
--
-- Worst case: 64 calls: about 500 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include ports/assign: assign_ports
-- include ports/next_ports: take_fresh
-- include ports/own_lazily: may_hold, own_all_lazily
-- include record: offer_record
-- include write_rest: write_rest

local keys = {service = KEYS[1], free = KEYS[2], fresh = KEYS[3], names = KEYS[4], offers = KEYS[5]}
local offer = {unpack(KEYS, 6)}
local owned = #ARGV % 3 == 1 and table.remove(offer) or nil
local most, owner = owned and table.remove(ARGV), owned and table.remove(ARGV)
local of, ttl = ARGV[1], ARGV[2]
local now = read_clock()

local wanted, answers = {}, {}
for i = 1, #offer do
  local is_known = ARGV[3 * i + 2] == '1' and (wanted[offer[i]] or call('EXISTS', offer[i]) == 1)
  wanted[i], wanted[offer[i]], answers[i] = not is_known and ARGV[3 * i], true, 0
end
local assigned, ports, ended, used, runs = assign_ports(keys, now, wanted, owner and may_hold(owned, most, now))
if #assigned == 0 then return answers end

local expires = string.format('%d', now + ttl)
local named, offered, scored = {}, {}, {}
for k, i in ipairs(assigned) do
  local name, port = wanted[i], ports[k]
  local record = offer_record(of, name, port, 1, now, expires, nil, ARGV[3 * i + 1], nil, owner)
  answers[i] = record
  named[2 * k - 1], named[2 * k] = name, port
  offered[2 * k - 1], offered[2 * k] = port, record
  scored[2 * k - 1], scored[2 * k] = expires, port
end
call('HSET', keys.names, unpack(named)) -- first, since a full Redis refuses it
return write_rest(answers, assigned, function()
  if #ended > 0 then call('HDEL', keys.names, unpack(ended)) end
  call('HSET', keys.offers, unpack(offered))
  if runs then take_fresh(keys.fresh, runs, #assigned - used) end
  call('ZADD', keys.free, unpack(scored))
  if owner then own_all_lazily(owned, now, scored) end
  for _, i in ipairs(assigned) do call('SET', offer[i], answers[i], 'PXAT', expires) end
end)
