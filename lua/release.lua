-- Releases an allocation: its ports and its name are free again, the ports once the cool-down is over.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, leases ZSET, then, with a secret, offer STRING (its own)
-- ARGV   service, port or name, the secret that the allocation must have ('': any), then the fences of which it must have
--        one (none: any)
--
-- answer 1  released, also where it was released with this secret a short while ago
-- errors SERVICE_NOT_FOUND, PORT_NOT_FOUND, SECRET_MISMATCH, PRECONDITION_FAILED
local service_key, free, names, offers, ports, leases, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local service, holder, secret = ARGV[1], ARGV[2], ARGV[3]
local call = redis.call
-- include clock

if secret ~= '' then
  -- include secret
  local state, _, name, port, _, count = look_up(offer, secret)
  if state == 'released' then
    local at = tonumber(holder)
    if holder == name or at and at >= tonumber(port) and at < port + count then return 1 end
  end
end
-- include find

local name, of_block, fence, of_lease, its_secret =
  string.match(allocation, '^{"name":"([^"]+)","port":%d+(.-),"created":%d+,"fence":(%d+)(.-),"secret":"([^"]+)"}$')
if secret ~= '' and secret ~= its_secret then
  return redis.error_reply('SECRET_MISMATCH the allocation of ' .. holder .. ' has another secret')
end
local matches = #ARGV == 3
for i = 4, #ARGV do
  matches = matches or ARGV[i] == fence
end
if not matches then
  return redis.error_reply('PRECONDITION_FAILED port ' .. port .. ' has fence ' .. fence .. ' by now')
end

for i = 0, of_block == '' and 0 or string.match(of_block, '%d+') - 1 do
  local each = i == 0 and port or string.format('%d', port + i)
  call('HDEL', ports, each)
  call('ZADD', free, now, each)
  if of_lease ~= '' then
    call('HDEL', offers, each)
    call('ZREM', leases, each)
  end
end
call('HDEL', names, name)
if secret ~= '' then
  -- So that a repeated call gets the same answer, and releases nobody else's.
  call('SET', offer, '{"service":"' .. service .. '","name":"' .. name .. '","port":' .. port .. of_block .. ',"created":' .. now ..
    ',"expires":' .. string.format('%d', now + 60000) .. ',"secret":"' .. secret .. '","released":true}', 'PX', '60000')
end
return 1
