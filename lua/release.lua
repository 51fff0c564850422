-- Releases an allocation: its ports and its name are free again, the ports once the cool-down is over.
--
-- KEYS   service HASH, free ZSET, names HASH, ports HASH, line ZSET, and for the long way offers HASH, leases ZSET, resting ZSET,
--        fresh ZSET, room ZSET, beats ZSET, lines ZSET, offer STRING (the secret's)
-- ARGV   service, port or name, the secret that the allocation must have ('': any), then the fences of which it must have
--        one (none: any)
--
-- answer 1  released, also where it was released with this secret a short while ago
--        0  nothing is done: it is to go the long way, since it has a lease, or somebody waits; with a secret it always is
-- errors SERVICE_NOT_FOUND, PORT_NOT_FOUND, SECRET_MISMATCH, PRECONDITION_FAILED
--
-- At worst a leased block of 100 ports, while 256 places in line were lost: about 600 us where an offer takes 10 us.
local service_key, free, names, ports, line = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local offers, leases, resting, fresh = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local room, beats, lines, offer = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local service, holder, secret = ARGV[1], ARGV[2], ARGV[3]
local call = redis.call
-- include clock

if secret ~= '' then
  -- include secret
  local state, _, name, port, _, count = look_up(offer, secret)
  if state == 'released' then
    local at = string.find(holder, '^[1-9]%d*$') and holder - port
    if holder == name or at and at >= 0 and at < count then return 1 end
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

local somebody_waits = call('EXISTS', line) == 1
if not offers then
  if of_lease ~= '' or of_block ~= '' or somebody_waits then return 0 end
  call('HDEL', ports, port)
  call('ZADD', free, now, port)
  call('HDEL', names, name)
  return 1
end

local all, scores = {port}, {now, port}
for i = 1, of_block == '' and 0 or string.match(of_block, '%d+') - 1 do
  all[i + 1] = string.format('%d', port + i)
  scores[2 * i + 1], scores[2 * i + 2] = now, all[i + 1]
end
call('HDEL', ports, unpack(all)) -- the first change, since a full Redis does not refuse it, and so none after it
call('ZADD', free, unpack(scores))
if of_lease ~= '' then
  call('HDEL', offers, unpack(all))
  call('ZREM', leases, unpack(all))
end
call('HDEL', names, name)
if secret ~= '' then
  -- So that a repeated call gets the same answer, and releases nobody else's.
  call('SET', offer, '{"service":"' .. service .. '","name":"' .. name .. '","port":' .. port .. of_block .. ',"created":' .. now ..
    ',"expires":' .. string.format('%d', now + 60000) .. ',"secret":"' .. secret .. '","released":true}', 'PX', '60000')
end
if somebody_waits then
  local count = #all
  -- include tell_of_free
end
return 1
