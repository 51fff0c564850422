-- Finds an allocation by one of its ports or by its holder's name: `port`, the first that it has, and `allocation`, its record.
-- A name is never all digits, so neither reads as the other. Ends the script where there is none, or its lease ran out.
local port = string.find(holder, '^%d+$') and holder or call('HGET', names, holder)
local allocation = port and call('HGET', ports, port)
if allocation and string.find(allocation, '^%d') then -- a further port of a block: this is the first one
  port = allocation
  allocation = call('HGET', ports, port)
end
-- include lives
if not allocation or not lives(allocation) then
  if call('EXISTS', service_key) == 0 then
    return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service)
  end
  return redis.error_reply('PORT_NOT_FOUND ' .. holder .. ' is not allocated in ' .. service)
end
