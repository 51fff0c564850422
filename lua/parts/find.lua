local call = redis.call
-- include record: is_first_port, is_live
-- include service: no_service

-- Finds an allocation by one of its ports or by its holder's name. A name is never all digits, so neither reads as the other.
--
-- answer: first port, record; or nil, nil, error
local function find(keys, now, service, holder)
  local port = string.find(holder, '^%d+$') and holder or call('HGET', keys.names, holder)
  local record = port and call('HGET', keys.ports, port)
  if record and is_first_port(record) then
    port = record
    record = call('HGET', keys.ports, port)
  end
  if record and is_live(record, now) then return port, record end
  if call('EXISTS', keys.service) == 0 then return nil, nil, no_service(service) end
  return nil, nil, 'PORT_NOT_FOUND ' .. holder .. ' is not allocated in ' .. service
end

return find
