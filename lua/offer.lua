-- Offers a free port of a service to an instance name.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, offer STRING (the secret's)
-- ARGV   service, name, secret, how long the offer is open (ms), '1' if the secret is the caller's own
--
-- answer record    a new offer
--        {record}  this secret already had this offer, and it is still open
-- errors SERVICE_NOT_FOUND, NAME_TAKEN
--        EXHAUSTED ms detail: ms until a port comes free by itself, or -1
--        only for a secret of the caller's own: INVALID secret detail, OFFER_ACCEPTED, OFFER_REJECTED
local service_key, free, names, offers, ports, offer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local service, name, secret, ttl, own = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local call = redis.call

-- A secret that the server has just drawn cannot have been here before; one of the caller's own can.
if own == '1' then
  local state, record, holder = look_up(offer, offers, ports, service, secret)
  if state == 'elsewhere' or (state and holder ~= name) then
    return redis.error_reply('INVALID secret belongs to another offer')
  elseif state == 'open' then
    return {record}
  elseif state == 'accepted' then
    return redis.error_reply('OFFER_ACCEPTED this offer was accepted already')
  elseif state == 'rejected' then
    return redis.error_reply('OFFER_REJECTED this offer was rejected already')
  end
end

-- The port that has been free the longest; where there is none, the lowest that was never handed out.
local fresh
local port = call('ZRANGEBYSCORE', free, '-inf', now, 'LIMIT', '0', '1')[1]
if not port then
  fresh = call('HGET', service_key, 'fresh')
  if not fresh then return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service) end
  port = string.match(fresh, '^%d+')
end

-- A name may have one port, allocated or offered. To take it is the last check and the first write, in one command.
if not port or call('HSETNX', names, name, port) == 0 then
  local held = call('HGET', names, name)
  local last = held and call('HGET', offers, held)
  if held and not last then
    return redis.error_reply('NAME_TAKEN ' .. name .. ' has port ' .. held)
  elseif last and tonumber(string.match(last, '"expires":(%d+)')) > tonumber(now) then
    return redis.error_reply('NAME_TAKEN ' .. name .. ' is offered port ' .. held)
  elseif not port then
    local next_free = call('ZRANGE', free, '0', '0', 'WITHSCORES')[2]
    return redis.error_reply(string.format('EXHAUSTED %d every port of %s is taken', next_free and next_free - now or -1, service))
  end
  -- The name's last offer ran out, and its port was not picked since.
  call('HSET', names, name, port)
  call('HDEL', offers, held)
end

local expires = string.format('%d', now + ttl)
local record = '{"service":"' .. service .. '","name":"' .. name .. '","port":' .. port ..
  ',"created":' .. now .. ',"expires":' .. expires .. ',"secret":"' .. secret .. '"}'
if call('HSETNX', offers, port, record) == 0 then
  -- The port's last offer ran out: the name that it was for is free with it.
  call('HDEL', names, string.match(call('HGET', offers, port), '"name":"([^"]+)"'))
  call('HSET', offers, port, record)
end
if fresh then
  -- 'from-to from-to ...' loses its first port.
  local to, rest = string.match(fresh, '^%d+%-(%d+)(.*)$')
  fresh = port == to and string.sub(rest, 2) or string.format('%d-', port + 1) .. to .. rest
  call('HSET', service_key, 'fresh', fresh)
end
call('ZADD', free, expires, port)
call('SET', offer, record, 'PXAT', expires)
return record
