-- Looks at the line of a service: who should ask again.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET, line ZSET, beats ZSET, lines ZSET
-- ARGV   service, then tickets of the server, 250 at most
--
-- answer {wait, size, ticket, ...}  in how many ms a port comes free by itself (-1: none does), how many ports the service has,
--                                   those in front for whom there are ports now, 16 at most, and those of ARGV that are not in
--                                   the line
-- errors none
--
-- At worst, 250 tickets, and 256 places that were lost: about 400 us where an offer takes 10 us.
local service_key, free, ports, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local resting, line, beats, lines = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local service = ARGV[1]
local call = redis.call
-- include clock
-- include service
if not cooldown then return {-1, 0} end
-- include waitlist

local tickets, size = called(16)
local wait = next_free()
if waiting then look_after(#tickets > 0 and 0 or wait) end
if waiting and somebody_left then publish(wait, size, tickets) end
local answer = {wait or -1, size, unpack(tickets)}
if #ARGV > 1 then
  for i, place in ipairs(call('ZMSCORE', line, unpack(ARGV, 2))) do
    if not place then answer[#answer + 1] = ARGV[i + 1] end
  end
end
return answer
