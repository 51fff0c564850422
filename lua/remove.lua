-- Removes a service that holds no port: none allocated, none on offer. Who waits in its line finds it gone.
--
-- KEYS   service HASH, free ZSET, ports HASH, leases ZSET, quarantine ZSET, beats ZSET, services ZSET, ends ZSET,
--        fresh ZSET, room ZSET, names HASH, offers HASH, line ZSET
-- ARGV   service
--
-- answer 1
-- errors SERVICE_NOT_FOUND, SERVICE_IN_USE
local service_key, free, ports, leases, quarantine, beats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local services, ends, fresh, room, names, offers, line = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local service = ARGV[1]
local call = redis.call
-- include clock

if call('EXISTS', service_key) == 0 then
  return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service)
end
local leased = call('ZRANGEBYSCORE', leases, '(' .. now, '+inf', 'LIMIT', '0', '1')[1]
if leased then return redis.error_reply('SERVICE_IN_USE port ' .. leased .. ' is allocated') end
if call('HLEN', ports) > call('ZCARD', leases) then
  local allocated = call('HRANDFIELD', ports)
  for _ = 1, 20 do -- to name one, a lease that ran out will not do
    if not call('ZSCORE', leases, allocated) then break end
    allocated = call('HRANDFIELD', ports)
  end
  return redis.error_reply('SERVICE_IN_USE port ' .. allocated .. ' is allocated')
end
-- Held until a time to come, and not leased: on offer, if it is not in quarantine.
local out = call('ZCOUNT', quarantine, '(' .. now, '+inf')
for _, held in ipairs(call('ZRANGEBYSCORE', free, '(' .. now, '+inf', 'LIMIT', '0', out + 1)) do
  if call('ZSCORE', quarantine, held) ~= call('ZSCORE', free, held) then
    return redis.error_reply('SERVICE_IN_USE port ' .. held .. ' is on offer')
  end
end

call('ZREM', services, service)
call('ZREM', ends, service)
call('UNLINK', service_key, free, fresh, room, names, offers, ports, leases, quarantine, line, beats)
return 1
