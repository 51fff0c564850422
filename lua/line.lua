-- Keeps the places of calls in line, and says who should ask again.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, line ZSET, beats ZSET
-- ARGV   tickets whose places are to be kept, 1,000 at most
--
-- answer {ticket, ...}  those in front for whom there are ports now, 16 at most, and those of ARGV that have lost their place
-- errors none
local service_key, free, ports, leases, line, beats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local call = redis.call
-- include clock
local cooldown = call('HGET', service_key, 'cooldown')
if not cooldown then return ARGV end
-- include turn

drop_lost()
local range = call('HMGET', service_key, 'start', 'end')
local for_ever = call('HLEN', ports) - call('ZCARD', leases)
local held = call('ZCOUNT', free, '(' .. string.format('%d', now - cooldown), '+inf')
local spare = range[2] - range[1] + 1 - held - for_ever

-- They are served one after the other, and each asks until those before it have theirs. Who waits for several ports may have
-- to go on waiting although there are as many.
local tickets = {}
for _, ticket in ipairs(spare > 0 and call('ZRANGE', line, '0', '15') or {}) do
  local wants = tonumber(string.match(ticket, '/(%d+)$'))
  if wants > spare then break end
  tickets[#tickets + 1] = ticket
  if wants > 1 then break end
  spare = spare - 1
end
if #ARGV == 0 then return tickets end
local kept = {}
for i, place in ipairs(call('ZMSCORE', line, unpack(ARGV))) do
  if place then
    kept[#kept + 1] = kept_until
    kept[#kept + 1] = ARGV[i]
  else
    tickets[#tickets + 1] = ARGV[i]
  end
end
if #kept > 0 then call('ZADD', beats, unpack(kept)) end
return tickets
