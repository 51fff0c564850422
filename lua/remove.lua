-- Removes a service that holds no port: none allocated, none on offer.
--
-- KEYS   service HASH, services ZSET, ends ZSET, free ZSET, names HASH, offers HASH, ports HASH
-- ARGV   service
--
-- answer 1
-- errors SERVICE_NOT_FOUND, SERVICE_IN_USE
local service_key, services, ends, free = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local names, offers, ports = KEYS[5], KEYS[6], KEYS[7]
local service = ARGV[1]
local call = redis.call

if call('EXISTS', service_key) == 0 then
  return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service)
end
local allocated = call('HRANDFIELD', ports)
if allocated then return redis.error_reply('SERVICE_IN_USE port ' .. allocated .. ' is allocated') end
local offered = call('ZRANGEBYSCORE', free, '(' .. now, '+inf', 'LIMIT', '0', '1')[1]
if offered then return redis.error_reply('SERVICE_IN_USE port ' .. offered .. ' is on offer') end

call('ZREM', services, service)
call('ZREM', ends, service)
call('UNLINK', service_key, free, names, offers, ports)
return 1
