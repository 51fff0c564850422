-- Offers the next ports of a service, one to each call's instance name: the short path, with few keys, that most offers
-- take.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, names HASH, offers HASH; of each call: offer STRING (of the secret);
--        of an owner: owned ZSET
-- ARGV   service, how long the offers are open (ms); of each call, 64 at most: name, secret, '1' if the secret may be
--        known already; of an owner, who makes one call: owner, and how many ports it may hold in the pool ('0': any
--        number)
--
-- answer of each call, one alone by itself:
--        record  a new offer
--        0       nothing was changed: take the long path, offer.lua
-- errors HALF_WRITTEN
--
-- Worst case: 64 calls: about 500 us (one takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include ports/next_ports: take_fresh
-- include ports/own_lazily: is_at_quota, own_lazily
-- include ports/assign: assign_ports
-- include record: offer_record
-- include write_rest: write_rest

local service, free, fresh, names, offers = unpack(KEYS)
local offer = {unpack(KEYS, 6)}
local of, ttl = unpack(ARGV)
local n = math.floor((#ARGV - 2) / 3)
local owner, most = unpack(ARGV, 3 * n + 3)
local now = read_clock()

local wanted, answers = {}, {}
for i = 1, n do
  local may_be_known = ARGV[3 * i + 2] == '1' and call('EXISTS', offer[i]) == 1
  wanted[i], answers[i] = not may_be_known and ARGV[3 * i], 0
end
if owner and is_at_quota(offer[2], most, now) then return 0 end
local picked, ports, ended, used, runs = assign_ports(service, free, fresh, names, offers, now, wanted)
if #picked == 0 then return n == 1 and 0 or answers end

local expires = string.format('%d', now + ttl)
local named, offered, scored = {}, {}, {}
for k, i in ipairs(picked) do
  local name, port = wanted[i], ports[k]
  answers[i] = offer_record(of, name, port, 1, now, expires, nil, ARGV[3 * i + 1], nil, owner)
  named[2 * k - 1], named[2 * k] = name, port
  offered[2 * k - 1], offered[2 * k] = port, answers[i]
  scored[2 * k - 1], scored[2 * k] = expires, port
end
call('HSET', names, unpack(named)) -- first, since a full Redis refuses it
return write_rest(function()
  if #ended > 0 then call('HDEL', names, unpack(ended)) end
  call('HSET', offers, unpack(offered))
  if runs then take_fresh(fresh, runs, #picked - used) end
  call('ZADD', free, unpack(scored))
  if owner then own_lazily(offer[2], now, ports[1], 1, expires) end
  for _, i in ipairs(picked) do call('SET', offer[i], answers[i], 'PXAT', expires) end
end) or n == 1 and answers[1] or answers
