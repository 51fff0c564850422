-- Finds an allocation by its port or by its holder's name. A name is never all digits, so neither reads as the other.
--
-- answer: port, record
--         nil, nil, error  SERVICE_NOT_FOUND, PORT_NOT_FOUND
local function find(service_key, names, ports, service, holder)
  local port = string.find(holder, '^%d+$') and holder or redis.call('HGET', names, holder)
  local allocation = port and redis.call('HGET', ports, port)
  if allocation then return port, allocation end
  if redis.call('EXISTS', service_key) == 0 then
    return nil, nil, redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service)
  end
  return nil, nil, redis.error_reply('PORT_NOT_FOUND ' .. holder .. ' is not allocated in ' .. service)
end
