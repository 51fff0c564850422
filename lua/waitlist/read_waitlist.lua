-- Reads which calls wait for a port of a service, in their order. Changes nothing. Calls of servers whose heartbeats
-- are missing are left out.
--
-- KEYS   service HASH, waitlist ZSET, heartbeats ZSET
-- ARGV   service, the position after which to begin ('0': at the front), how many tickets to look at, 1,000 at most
--
-- answer {now (Unix ms), next, ticket, position, ...}: next is the position after which to go on, '' if there are no
--        more
-- errors SERVICE_NOT_FOUND
--
-- Worst case: 1,000 tickets of as many servers: about 1 ms (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include service: no_service

local keys = {service = KEYS[1], waitlist = KEYS[2], heartbeats = KEYS[3]}
local service, after, most = unpack(ARGV)
local now = read_clock()
if call('EXISTS', keys.service) == 0 then return redis.error_reply(no_service(service)) end

local found = call('ZRANGEBYSCORE', keys.waitlist, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', '0', most)
local answer, servers, lasts = {now, #found == 2 * most and found[#found] or ''}, {}, {}
for i = 1, #found, 2 do
  local server = string.match(found[i], '^[^-]*')
  if not lasts[server] then
    lasts[server] = 0
    servers[#servers + 1] = server
  end
end
if #servers == 0 then return answer end
for i, at in ipairs(call('ZMSCORE', keys.heartbeats, unpack(servers))) do
  lasts[servers[i]] = (at or 0) - now
end
for i = 1, #found, 2 do
  local left = lasts[string.match(found[i], '^[^-]*')]
  if left > 0 and left <= 1500 then
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = found[i + 1]
  end
end
return answer
