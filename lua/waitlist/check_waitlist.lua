-- Looks at the line of a service: who should ask again.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET, waitlist ZSET, heartbeats ZSET, waitlists ZSET
-- ARGV   service, then tickets of the server, 250 at most
--
-- answer {wait, size, ticket, ...}  in how many ms a port comes free by itself (-1: none does), how many ports the service has,
--                                   those in front for whom there are ports now, 16 at most, and those of ARGV that are not in
--                                   the line
-- errors none
--
-- At worst, 250 tickets, and 256 places that were lost: about 400 us where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock
-- include service: read_service
-- include waitlist: look_after, next_free, publish, whose_turn

local keys = {
  service = KEYS[1], free = KEYS[2], ports = KEYS[3], leases = KEYS[4], resting = KEYS[5], waitlist = KEYS[6],
  heartbeats = KEYS[7], waitlists = KEYS[8],
}
local service = read_service(keys, read_clock(), ARGV[1])
if not service.cooldown then return {-1, 0} end

local tickets, size = whose_turn(keys, service, 16)
local wait = next_free(keys, service)
if service.waiting then look_after(keys, service, #tickets > 0 and 0 or wait) end
if service.waiting and service.somebody_left then publish(keys, service, wait, size, tickets) end
local answer = {wait or -1, size, unpack(tickets)}
if #ARGV > 1 then
  for i, position in ipairs(call('ZMSCORE', keys.waitlist, unpack(ARGV, 2))) do
    if not position then answer[#answer + 1] = ARGV[i + 1] end
  end
end
return answer
