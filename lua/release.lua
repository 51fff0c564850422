-- Releases an allocation: its port and its name are free again at once.
--
-- KEYS   service HASH, free ZSET, names HASH, ports HASH
-- ARGV   service, port or name, then the fences of which the allocation must have one (none: any)
--
-- answer 1
-- errors SERVICE_NOT_FOUND, PORT_NOT_FOUND, PRECONDITION_FAILED
local service_key, free, names, ports = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local service, holder = ARGV[1], ARGV[2]
local call = redis.call

local port, allocation, missing = find(service_key, names, ports, service, holder)
if missing then return missing end

local name, fence = string.match(allocation, '"name":"([^"]+)".*"fence":(%d+)')
local matches = #ARGV == 2
for i = 3, #ARGV do
  matches = matches or ARGV[i] == fence
end
if not matches then
  return redis.error_reply('PRECONDITION_FAILED port ' .. port .. ' has fence ' .. fence .. ' by now')
end

call('HDEL', ports, port)
call('HDEL', names, name)
call('ZADD', free, now, port)
return 1
