-- Removes a service of which no port is held, neither offered nor allocated. Calls that wait for its ports are told.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, rest HASH, waitlist ZSET, heartbeats ZSET, waitlists ZSET, services ZSET, ends ZSET,
--        fence STRING, events STREAM, removed STRING, ranges ZSET, labels HASH, last HASH
-- ARGV   events, request, service
--
-- answer how many services the pool has left
--        -1  it let 150 ports rest, or cleared leases that ended: call it again
-- errors SERVICE_NOT_FOUND, SERVICE_IN_USE
--
-- Worst case: 150 ports that cool down after leases that ended: about 1.4 ms, with a history 1.8 ms (an
-- offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include clear_ended: clear_ended
-- include history: add_change, end_history
-- include resting: rest_cooling
-- include service: no_service, read_service
-- include services/overlaps: forget_ranges, read_pool_ranges
-- include waitlist: notify_gone

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], rest = KEYS[10], waitlist = KEYS[11], heartbeats = KEYS[12],
  waitlists = KEYS[13], services = KEYS[14], ends = KEYS[15], fence = KEYS[16],
  events = KEYS[17], removed = KEYS[18], ranges = KEYS[19], labels = KEYS[20], last = KEYS[21],
}
local now = read_clock()
local service = read_service(keys, now, ARGV[3])

if not service.cooldown then return redis.error_reply(no_service(service.name)) end
if call('HLEN', keys.ports) > call('ZCARD', keys.leases) then
  local allocated = call('HRANDFIELD', keys.ports)
  for _ = 1, 20 do -- look for a port to name that has no lease: a lease may have ended
    if not call('ZSCORE', keys.leases, allocated) then break end
    allocated = call('HRANDFIELD', keys.ports)
  end
  return redis.error_reply('SERVICE_IN_USE port ' .. allocated .. ' is allocated')
end
local held = call('ZRANGEBYSCORE', keys.free, '(' .. now, '+inf', 'LIMIT', '0', '1')[1]
if held then
  local leased = call('ZSCORE', keys.leases, held)
  return redis.error_reply('SERVICE_IN_USE port ' .. held .. (leased and ' is allocated' or ' is on offer'))
end

if not rest_cooling(keys, service) then return -1 end
if ARGV[1] ~= '0' then -- the history says which leases have ended
  local leased = call('ZRANGE', keys.leases, '0', '149')
  clear_ended(keys, leased, 150)
  if #leased > 0 then return -1 end
end
forget_ranges(keys, service.name, (read_pool_ranges(keys)))
call('UNLINK', keys.service, keys.free, keys.fresh, keys.run_lengths, keys.names, keys.offers, keys.ports, keys.leases,
  keys.resting, keys.waitlist, keys.labels, keys.last)
add_change(keys.events, 'removed')
end_history(keys.events)
if ARGV[1] ~= '0' then redis.pcall('SET', keys.removed, now, 'PX', '2678400000') end -- as long as the history is there
if service.waiting then notify_gone(keys, service) end
local left = call('ZCARD', keys.services)
if left == 0 then
  call('UNLINK', keys.heartbeats, keys.waitlists)
  call('PEXPIRE', keys.fence, '7200000') -- later fences are higher by then, see is_behind
end
return left
