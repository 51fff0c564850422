-- Says which calls in the waitlist of a service are to try again.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, resting ZSET, waitlist ZSET, heartbeats ZSET,
--        waitlists ZSET
-- ARGV   service, then tickets of the server, 250 at most
--
-- answer {wait, size, ticket, ...}  in how many ms a port becomes free by itself (-1: none does), how many ports the
--                                   service has, then the tickets whose turn it is, 16 at most, and those of ARGV that
--                                   are not in the waitlist
-- errors none
--
-- Worst case: 250 tickets, while 256 positions were lost: about 400 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include service: read_service
-- include waitlist: look_in, next_free, publish, whose_turn

local keys = {
  service = KEYS[1], free = KEYS[2], ports = KEYS[3], leases = KEYS[4], resting = KEYS[5], waitlist = KEYS[6],
  heartbeats = KEYS[7], waitlists = KEYS[8],
}
local now = read_clock()
local service = read_service(keys, now, ARGV[1])
if not service.cooldown then return {-1, 0} end

local tickets, size = whose_turn(keys, service, 16)
local wait = next_free(keys, service)
if service.waiting then look_in(keys, service, #tickets > 0 and 0 or wait) end
if service.waiting and service.has_lost then publish(keys, service, wait, size, tickets) end
local answer = {wait or -1, size, unpack(tickets)}
if #ARGV > 1 then
  for i, position in ipairs(call('ZMSCORE', keys.waitlist, unpack(ARGV, 2))) do
    if not position then answer[#answer + 1] = ARGV[i + 1] end
  end
end
return answer
