-- Removes a service that holds no port: none allocated, none on offer. Who waits in its line finds it gone.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, room ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        rest HASH, line ZSET, beats ZSET, lines ZSET, services ZSET, ends ZSET, fence STRING
-- ARGV   service
--
-- answer how many services the pool has left
--        -1  it has put 150 ports to rest, and is to be called again
-- errors SERVICE_NOT_FOUND, SERVICE_IN_USE
--
-- At worst 150 ports that cool down after leases that ran out: about 1.4 ms where an offer takes 10 us.
local service_key, free, fresh, room, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local offers, ports, leases, resting, rest = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local line, beats, lines, services, ends, fence = KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local service = ARGV[1]
local call = redis.call
-- include clock
-- include service
-- include clear
-- include clear_all
-- include rest
-- include put_to_rest
-- include waitlist

if not cooldown then return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service) end
if call('HLEN', ports) > call('ZCARD', leases) then
  local allocated = call('HRANDFIELD', ports)
  for _ = 1, 20 do -- to name one, a lease that ran out will not do
    if not call('ZSCORE', leases, allocated) then break end
    allocated = call('HRANDFIELD', ports)
  end
  return redis.error_reply('SERVICE_IN_USE port ' .. allocated .. ' is allocated')
end
local held = call('ZRANGEBYSCORE', free, '(' .. now, '+inf', 'LIMIT', '0', '1')[1]
if held then
  local leased = call('ZSCORE', leases, held)
  return redis.error_reply('SERVICE_IN_USE port ' .. held .. (leased and ' is allocated' or ' is on offer'))
end

if not put_to_rest(cooldown) then return -1 end
call('ZREM', services, service)
call('ZREM', ends, service)
call('UNLINK', service_key, free, fresh, room, names, offers, ports, leases, resting, line)
if waiting then tell_gone() end
local left = call('ZCARD', services)
if left == 0 then
  call('UNLINK', beats, lines)
  call('PEXPIRE', fence, '7200000') -- later ones are of a later time by then; see next_fence.lua
end
return left
