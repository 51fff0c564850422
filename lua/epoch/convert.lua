-- Converts a service from schema 0, that of the servers before schemas had numbers, to schema 1, a step at a time.
-- What is of schema 1 stays as it is, so it may run while servers of schema 1 work.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, old_quarantine ZSET, resting ZSET, rest HASH,
--        waitlist ZSET, old_beats ZSET
-- ARGV   none
--
-- answer 1  the service is of schema 1
--        0  call it again
-- errors none
--
-- Ports that were found in use move from `free` to `resting`. Calls of older servers leave the waitlist, since those
-- servers grant nothing any more. Worst case: 200 such ports: about 0.9 ms (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include resting: let_rest

local keys = {
  service = KEYS[1], free = KEYS[2], offers = KEYS[3], ports = KEYS[4], old_quarantine = KEYS[5], resting = KEYS[6],
  rest = KEYS[7], waitlist = KEYS[8], old_beats = KEYS[9],
}
local now = read_clock()

local cooldown = call('HGET', keys.service, 'cooldown')
if not cooldown then
  call('UNLINK', keys.old_quarantine, keys.old_beats)
  return 1
end
local quarantined = call('ZRANGE', keys.old_quarantine, '0', '199', 'WITHSCORES')
local all, until_of, moved = {}, {}, {}
for i = 1, #quarantined, 2 do all[#all + 1] = quarantined[i] end
if #all > 0 then
  local scores = call('ZMSCORE', keys.free, unpack(all))
  local offered, allocated = call('HMGET', keys.offers, unpack(all)), call('HMGET', keys.ports, unpack(all))
  for i, port in ipairs(all) do
    local until_then = quarantined[2 * i] + cooldown
    if scores[i] == quarantined[2 * i] and not offered[i] and not allocated[i] and until_then > tonumber(now) then
      moved[#moved + 1] = port
      until_of[#until_of + 1] = port
      until_of[#until_of + 1] = string.format('%d', until_then)
    end
  end
  if #moved > 0 then call('ZREM', keys.free, unpack(moved)) end
  let_rest(keys, until_of)
  call('ZREM', keys.old_quarantine, unpack(all))
  if #all == 200 then return 0 end
end

local old = {}
for _, ticket in ipairs(call('ZRANGE', keys.waitlist, '0', '249')) do
  if not string.find(ticket, '/%d+/[%d.]+$') then old[#old + 1] = ticket end
end
if #old > 0 then
  call('ZREM', keys.waitlist, unpack(old))
  return 0
end
if call('EXISTS', keys.waitlist) == 0 then call('HDEL', keys.service, 'waiting') end
call('UNLINK', keys.old_beats)
return 1
