-- Describes a service and counts its ports.
--
-- answer: {description, start, end, created, fresh, ports offered, ports allocated, now (Unix ms)}
--         nil  no such service
local function describe(service_key, free, ports)
  local record = redis.call('HMGET', service_key, 'description', 'start', 'end', 'created', 'fresh')
  if not record[2] then return nil end
  record[6] = redis.call('ZCOUNT', free, '(' .. now, '+inf')
  record[7] = redis.call('HLEN', ports)
  record[8] = now
  return record
end
