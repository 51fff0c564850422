-- Brings a service of schema 0, that of the servers before there were numbers, to schema 1, a step at a time. What is of schema 1
-- already stays as it is, so it may run while servers of schema 1 work.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, quarantine ZSET, resting ZSET, rest HASH, line ZSET, beats ZSET
-- ARGV   none
--
-- answer 1  the service is of schema 1
--        0  it is to be called again
-- errors none
--
-- Ports that were found in use rest, and are not in `free`; the calls of older servers leave the line, since those servers hand
-- out nothing any more. At worst 200 such ports: about 0.9 ms where an offer takes 10 us.
local service_key, free, offers, ports = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local quarantine, resting, rest, line, beats = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local call = redis.call
-- include clock
-- include rest

local cooldown = call('HGET', service_key, 'cooldown')
if not cooldown then
  call('UNLINK', quarantine, beats)
  return 1
end
local kept_out = call('ZRANGE', quarantine, '0', '199', 'WITHSCORES')
local all, at_rest, gone = {}, {}, {}
for i = 1, #kept_out, 2 do all[#all + 1] = kept_out[i] end
if #all > 0 then
  local scores = call('ZMSCORE', free, unpack(all))
  local offered, allocated = call('HMGET', offers, unpack(all)), call('HMGET', ports, unpack(all))
  for i, port in ipairs(all) do
    local until_then = kept_out[2 * i] + cooldown
    if scores[i] == kept_out[2 * i] and not offered[i] and not allocated[i] and until_then > tonumber(now) then
      gone[#gone + 1] = port
      at_rest[#at_rest + 1] = port
      at_rest[#at_rest + 1] = string.format('%d', until_then)
    end
  end
  if #gone > 0 then call('ZREM', free, unpack(gone)) end
  let_rest(at_rest)
  call('ZREM', quarantine, unpack(all))
  if #all == 200 then return 0 end
end

local old = {}
for _, ticket in ipairs(call('ZRANGE', line, '0', '249')) do
  if not string.find(ticket, '/%d+/[%d.]+$') then old[#old + 1] = ticket end
end
if #old > 0 then
  call('ZREM', line, unpack(old))
  return 0
end
if call('EXISTS', line) == 0 then call('HDEL', service_key, 'waiting') end
call('UNLINK', beats)
return 1
